"""The whole server on a port of the loopback, and what it must leave behind.

`serving` runs everything but the signals: listener, admission, connections, engine actor, and the
scripted engine behind it. When its block is left, every client must be gone and the server, still
running, must hold nothing any more: no admitted connection, no engine slot, no socket.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from tests.engine.scripted import HEALTHY, Script, Scripted, speech, transcript
from tests.server.wire_client import KEY, Client, websocket
from tests.server.wire_helpers import HOST
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.protocol.events import Delta, Done, SessionCreated
from voxtral_actors.server.admission import Admission
from voxtral_actors.server.app import Running, run
from voxtral_actors.settings import load

OTHER_KEY = "the-key-before-the-rotation"


async def until(holds: Callable[[], bool], what: str) -> None:
    """Wait, within a bound, until something is true that nobody signals."""
    with trio.move_on_after(5):
        while not holds():
            await trio.lowlevel.checkpoint()
    assert holds(), what


@attrs.frozen
class Answer:
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def request(port: int, path: str, method: str = "GET", body: bytes = b"") -> Answer:
    """One HTTP request on a connection of its own."""
    head = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{port}", "Connection: close"]
    if body:
        head.append(f"Content-Length: {len(body)}")
    async with await trio.open_tcp_stream(HOST, port) as stream:
        await stream.send_all("\r\n".join([*head, "", ""]).encode() + body)
        answer = b"".join([part async for part in stream])
    top, _, content = answer.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(first.split()[1]), fields, content)


@asynccontextmanager
async def speaking(peer: Client, *, patience_s: float) -> AsyncIterator[None]:
    """`peer` speaks all the while; each word must be right, and come in time and alone."""
    done = trio.Event()

    async def speak(*, task_status: trio.TaskStatus[None]) -> None:
        said = bytearray()
        await peer.start("beside")
        while not done.is_set():
            chunk = speech(0.08, seed=len(said))
            said += chunk
            await peer.send(chunk)
            if text := transcript(chunk):
                with trio.fail_after(patience_s):
                    assert (await peer.hear(Delta)).delta == text
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            with trio.move_on_after(0.02):  # the pace of a lively speaker
                await done.wait()
        await peer.finish("beside")
        assert (await peer.hear(Done)).text == transcript(bytes(said))

    async with trio.open_nursery() as nursery:
        await nursery.start(speak)
        try:
            yield
        finally:
            done.set()


@attrs.frozen
class Served:
    """One server that accepts connections."""

    running: Running
    engine: EngineActor
    scripted: Scripted
    returned: trio.Event
    """Set when the server has stopped by itself."""

    @property
    def port(self) -> int:
        return self.running.port

    @property
    def authority(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def admission(self) -> Admission:
        return self.running.service.admission

    @asynccontextmanager
    async def connect(
        self, query: str = "", *, subprotocols: Iterable[str] = (), **headers: str
    ) -> AsyncIterator[Client]:
        """A WebSocket, with nothing read from it yet. `X_API_Key="…"` is a header."""
        target = "/ws" + (f"?{query}" if query else "")
        async with websocket(self.port, target, subprotocols, headers) as client:
            yield client

    @asynccontextmanager
    async def session(self, **headers: str) -> AsyncIterator[Client]:
        """An admitted connection whose `session.created` has been heard."""
        async with self.connect(**{"X_API_Key": KEY, **headers}) as client:
            client.created = await client.hear(SessionCreated)
            yield client

    async def stream(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(HOST, self.port)

    @asynccontextmanager
    async def bystander(self) -> AsyncIterator[None]:
        """Another session speaks all the while, and every word must come at once and be right."""
        async with self.session() as peer, speaking(peer, patience_s=2):
            yield

    async def http(self, path: str, method: str = "GET", body: bytes = b"") -> Answer:
        return await request(self.port, path, method, body)

    async def empty(self) -> None:
        """Wait until the server holds nothing for anybody."""

        def holds() -> tuple[int, int, int]:
            slots = self.engine.statistics().slots_taken
            return self.admission.open, slots, self.running.listener.statistics().open

        await until(lambda: holds() == (0, 0, 0), "open connections, engine slots, or sockets")


@asynccontextmanager
async def serving(script: Script = HEALTHY, /, **env: str) -> AsyncIterator[Served]:
    """A server with these settings, whose engine is or will be what the script says."""
    settings = load({
        "VOXTRAL_API_KEY": f"{KEY},{OTHER_KEY}",
        "MAX_CONCURRENT_CONNECTIONS": "8",
        "VOXTRAL_PORT": "0",
        **env,
    })  # fmt: skip
    scripted = Scripted(script)
    engine = EngineActor(scripted.backend)
    returned = trio.Event()

    async def serve(*, task_status: trio.TaskStatus[Running]) -> None:
        await run(settings, engine=engine, task_status=task_status)
        returned.set()

    async with trio.open_nursery() as nursery:
        running: Running = await nursery.start(serve)
        served = Served(running, engine, scripted, returned)
        if not script.start_s and not script.fail_start:
            with trio.fail_after(5):
                await engine.wait_ready()
        yield served
        if not returned.is_set():
            await served.empty()
        nursery.cancel_scope.cancel()
    assert running.listener.statistics().failures == 0, "an exception reached the listener"
