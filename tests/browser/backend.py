"""A server with the scripted engine, in a thread of its own: the browser's driver needs this one.

It is the harness of the server's tests (`tests/server/harness.py`), so what that checks is checked
here as well: when the pages are gone the server holds nothing any more, and no exception has
reached its listener.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import attrs
import trio

from tests.engine.scripted import HEALTHY, Script
from tests.server.harness import Served, serving
from tests.server.wire_client import KEY

T = TypeVar("T")


@attrs.frozen
class Backend:
    """A server that accepts connections, seen from another thread."""

    served: Served
    token: trio.lowlevel.TrioToken

    @property
    def port(self) -> int:
        return self.served.port

    @property
    def url(self) -> str:
        """The page's address, without a key."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def with_key(self) -> str:
        return f"{self.url}#key={KEY}"

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in the server's thread."""
        result: T = trio.from_thread.run_sync(function, trio_token=self.token)
        return result

    def kill_engine(self) -> None:
        self.call(self.served.scripted.kill)

    def until_ready(self) -> None:
        trio.from_thread.run(self.served.engine.wait_ready, trio_token=self.token)

    def drain(self) -> None:
        self.call(self.served.running.stop.set)

    def drop_connections(self) -> None:
        """Every socket is cut, as by a network that breaks off."""

        def drop() -> None:
            for wire in list(self.served.running.listener._wires):
                wire.abort()

        self.call(drop)

    def heard(self) -> int:
        """Samples that have reached the engine, all streams together."""
        return self.call(lambda: sum(part.fed for part in self.served.scripted.streams)) // 2


@contextmanager
def running(script: Script = HEALTHY, **env: str) -> Iterator[Backend]:
    """A server with these settings; it must be left with no client connected."""
    ready: Future[Backend] = Future()
    stop = trio.Event()

    async def serve() -> None:
        async with serving(script, **env) as served:
            ready.set_result(Backend(served, trio.lowlevel.current_trio_token()))
            await stop.wait()

    with ThreadPoolExecutor(1) as threads:
        life = threads.submit(trio.run, serve)
        life.add_done_callback(lambda _: ready.done() or ready.cancel())
        backend = ready.result()
        try:
            yield backend
        finally:
            if not life.done():
                backend.call(stop.set)
        life.result()
