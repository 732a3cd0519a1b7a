"""A scripted server for the client's tests: each test says what the other side does.

Rules of this suite: sockets only on 127.0.0.1 and port 0, or memory streams; every test runs under
`trio.fail_after`; order comes from events and not from sleeps; time that matters is virtual.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import attrs
import trio
import trio_websocket

from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.protocol import codec
from voxtral_actors.protocol.commands import (
    Append,
    Cancel,
    End,
    Finalise,
    Inbound,
    Ping,
    SessionUpdate,
    Start,
)
from voxtral_actors.protocol.events import (
    Cancelled,
    Delta,
    Done,
    Event,
    Pong,
    SessionCreated,
    SessionEnd,
    SessionUpdated,
    Usage,
)

E = TypeVar("E", bound=Inbound)

KEY = "k-1234567890"
CREATED = SessionCreated(
    "sess-1", "connection", "sess-1", 1_700_000_000, "tiny", "scripted", SAMPLE_RATE, 400, {}
)


class Peer:
    """The server's end of one connection."""

    def __init__(self, request: trio_websocket.WebSocketRequest) -> None:
        self.headers = {name.lower(): value for name, value in request.headers}
        self.path = request.path
        self.got: list[Inbound] = []
        self.listening = trio.Event()
        """The first audio is here."""
        self.left = trio.Event()
        """The script is over, most often because the client is gone."""
        self.ws: trio_websocket.WebSocketConnection

    async def receive(self) -> Inbound:
        command = codec.decode(await self.ws.get_message(), 1 << 20)
        self.got.append(command)
        if isinstance(command, Append):
            self.listening.set()
        return command

    async def expect(self, cls: type[E]) -> E:
        """The next command of a class; what comes before it is only recorded."""
        while not isinstance(command := await self.receive(), cls):
            pass
        return command

    async def send(self, *events: Event) -> None:
        for event in events:
            await self.ws.send_message(codec.encode(event))

    async def close(self, code: int, reason: str) -> None:
        await self.ws.aclose(code, reason)

    @property
    def audio(self) -> bytes:
        return b"".join(command.audio for command in self.got if isinstance(command, Append))

    @property
    def kinds(self) -> list[str]:
        return [type(command).__name__ for command in self.got]


Script = Callable[[Peer], Awaitable[None]]


@attrs.frozen
class Stub:
    url: str
    peers: list[Peer]


@asynccontextmanager
async def serving(script: Script) -> AsyncGenerator[Stub]:
    """A server that runs `script` for every connection; a script that fails fails the test."""
    peers: list[Peer] = []

    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        peer = Peer(request)
        peers.append(peer)
        peer.ws = await request.accept()
        with suppress(trio_websocket.ConnectionClosed):
            await script(peer)
        peer.left.set()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, handle, "127.0.0.1", 0, None)
        yield Stub(f"ws://127.0.0.1:{server.port}/ws", peers)
        nursery.cancel_scope.cancel()


async def polite(peer: Peer) -> None:
    """A whole server in small: every utterance hears "one two" and the size of its audio."""
    await peer.send(CREATED)
    sizes: dict[str, int] = {}
    active: str | None = None
    while True:
        command = await peer.receive()
        match command:
            case Start(session_id, request_id):
                if active is not None:
                    await peer.send(Cancelled(session_id, active, "superseded"))
                active = request_id
                sizes[request_id] = 0
            case Append(audio):
                assert active is not None, "audio without an utterance"
                if not sizes[active]:
                    await peer.send(Delta("s", active, "one ", 80))
                sizes[active] += len(audio)
            case Finalise(session_id, request_id):
                seconds = sizes[request_id] / 2 / SAMPLE_RATE
                last = f"two {seconds:g}"
                usage = Usage(3, 2, 5, seconds)
                await peer.send(
                    Delta(session_id, request_id, last, int(seconds * 1000)),
                    Done(session_id, request_id, ("one " if seconds else "") + last, usage),
                )
                active = None
            case Cancel(session_id, request_id, reason):
                active = None
                await peer.send(Cancelled(session_id, request_id, reason or "client_request"))
            case Ping(session_id, request_id):
                await peer.send(Pong(session_id, request_id))
            case SessionUpdate(session_id, request_id):
                await peer.send(SessionUpdated(session_id, request_id, "tiny"))
            case End(session_id, request_id):
                await peer.send(SessionEnd(session_id, request_id, "end"))
                await peer.close(1000, "end")
                return
            case _:
                raise AssertionError(f"the client sent {command}")
