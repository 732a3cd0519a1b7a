"""The client in an asyncio program: python examples/asyncio_user.py FILE

The client runs on trio, so trio gets a thread of its own. `Bridge` holds a session there; `run`
calls one of its async functions and waits for it without holding up asyncio. What it raises comes
out of `run`. The server and the key come from VOXTRAL_URL and VOXTRAL_API_KEY.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Self, TypeVar

import trio

from voxtral_actors.client import Session, UtteranceEvent, connect, feed
from voxtral_actors.client.audio import open_audio

T = TypeVar("T")


class Bridge:
    """A session in a trio thread; use it with `async with`."""

    session: Session

    def __init__(self, url: str, **options: Any) -> None:
        self._url = url
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    async def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Call a trio function of the session, of an utterance, or of your own."""
        run = trio.from_thread.run
        return await asyncio.to_thread(run, function, *args, trio_token=self._token)

    async def __aenter__(self) -> Self:
        self._thread.start()
        await self._ready
        return self

    async def __aexit__(self, *_: object) -> None:
        self._token.run_sync_soon(self._stop.set)
        await self._over.wait()  # noqa: ASYNC102 - asyncio: leaving is bounded by `connect`

    def _run(self) -> None:
        """The thread. All that it tells asyncio goes through `call_soon_threadsafe`."""
        tell = self._loop.call_soon_threadsafe
        try:
            trio.run(self._host)
        except Exception as error:
            tell(self._failed, error)
        tell(self._over.set)

    def _failed(self, error: Exception) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)

    async def _host(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        async with connect(self._url, **self._options) as self.session:
            self._loop.call_soon_threadsafe(self._ready.set_result, None)
            await self._stop.wait()


async def events(bridge: Bridge, chunks: Iterable[bytes]) -> AsyncIterator[UtteranceEvent]:
    """One utterance: its audio goes in, its events come out, at the same time."""
    utterance = bridge.session.utterance()
    await bridge.run(utterance.__aenter__)
    sending = asyncio.create_task(bridge.run(feed, utterance, chunks))
    try:
        while True:
            try:
                yield await bridge.run(utterance.__anext__)
            except StopAsyncIteration:
                break
        await sending
    finally:
        await bridge.run(utterance.__aexit__, None, None, None)  # noqa: ASYNC102 - does not wait


async def main(path: str, url: str, key: str) -> None:
    async with Bridge(url, api_key=key) as bridge:
        with open_audio(path) as audio:
            async for event in events(bridge, audio):
                print(event)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Which recording? python examples/asyncio_user.py FILE")
    url = os.environ.get("VOXTRAL_URL", "ws://127.0.0.1:8000/ws")
    asyncio.run(main(sys.argv[1], url, os.environ["VOXTRAL_API_KEY"]))
