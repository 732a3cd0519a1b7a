"""The real listener on a port or in virtual time, raw frames, and a session that must not notice.

`Served` holds one listener on 127.0.0.1; everything that is sent to it by hand is bytes, so that a
test shows exactly what the peer does. No test here sleeps: a fact about time is proved on the mock
clock over memory streams, or with deadlines of a few tenths of a second over real sockets.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair
from trio_websocket import WebSocketConnection, wrap_client_stream

from tests.server.wire_app import Seen, echo_app
from voxtral_actors.server.listener import Listener, open_listeners
from voxtral_actors.server.wire import WireOptions

HOST = "127.0.0.1"
OPTIONS = WireOptions(write_deadline_s=5.0, max_message_bytes=65_536)
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Raw:
    """A peer that sends what it is told, byte by byte."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._input = bytearray()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def upgrade(self, path: str = "/ws", *extra: bytes) -> bytes:
        """The head of the answer to an upgrade request."""
        await self.send(upgrade_request(path, *extra))
        return await self.head()

    async def _more(self) -> None:
        data = await self.stream.receive_some(65_536)
        if not data:
            raise EOFError(bytes(self._input))
        self._input += data

    async def take(self, size: int) -> bytes:
        while len(self._input) < size:
            await self._more()
        taken = bytes(self._input[:size])
        del self._input[:size]
        return taken

    async def head(self) -> bytes:
        while b"\r\n\r\n" not in self._input:
            await self._more()
        return await self.take(self._input.index(b"\r\n\r\n") + 4)

    async def frame(self, *, skip: tuple[int, ...] = (PING,)) -> tuple[int, bytes]:
        """The next frame's opcode and payload; pings are passed over."""
        while True:
            first, length = await self.take(2)
            assert first & 0x70 == 0, "a reserved bit is set"
            assert length < 128, "a server's frame is masked"
            if length == 126:
                (length,) = struct.unpack("!H", await self.take(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.take(8))
            payload = await self.take(length)
            if first & 0x0F not in skip:
                return first & 0x0F, payload

    async def close_frame(self) -> tuple[int, bytes]:
        """Code and reason of the Close frame; other frames before it are passed over."""
        _, payload = await self.frame(skip=(PING, PONG, TEXT, BINARY))
        return struct.unpack("!H", payload[:2])[0], payload[2:]

    async def rest(self) -> bytes:
        """Everything up to the server's EOF; fails if the connection is reset instead."""
        while data := await self.stream.receive_some(65_536):
            self._input += data
        return bytes(self._input)

    async def gone(self) -> None:
        """Returns when the server has ended the connection, in whatever way."""
        try:
            await self.rest()
        except trio.BrokenResourceError:
            return


def upgrade_request(path: str = "/ws", *extra: bytes, connection: bytes = b"Upgrade") -> bytes:
    lines = [
        b"GET " + path.encode() + b" HTTP/1.1",
        b"Host: here",
        b"Upgrade: websocket",
        b"Connection: " + connection,
        b"Sec-WebSocket-Key: " + KEY,
        b"Sec-WebSocket-Version: 13",
        *extra,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """A client's frame, masked with zeros."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if len(payload) < 126:
        head = struct.pack("!BB", first, 0x80 | len(payload))
    elif len(payload) < 65_536:
        head = struct.pack("!BBH", first, 0x80 | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, len(payload))
    return head + b"\0\0\0\0" + payload


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


@attrs.define
class Served:
    """One listener that is serving."""

    listener: Listener
    port: int
    seen: Seen
    returned: trio.Event
    """Set when the listener's `run` has returned."""

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[Raw]:
        stream = await trio.open_tcp_stream(HOST, self.port)
        async with stream:
            yield Raw(stream)

    @asynccontextmanager
    async def socket(self, path: str = "/ws") -> AsyncIterator[WebSocketConnection]:
        """A client. trio-websocket would leave its socket open where the server closes first."""
        async with (
            await trio.open_tcp_stream(HOST, self.port) as stream,
            trio.open_nursery() as nursery,
        ):
            peer = await wrap_client_stream(nursery, stream, HOST, path)
            try:
                yield peer
            finally:
                await peer.aclose()  # noqa: ASYNC102 - who uses it has a deadline

    @asynccontextmanager
    async def bystander(self) -> AsyncIterator[None]:
        """Another session: it echoes before, all the time during, and after what is tested."""
        async with self.socket() as peer, trio.open_nursery() as nursery:
            await echoes(peer, "before")

            async def during(task_status: trio.TaskStatus[None]) -> None:
                task_status.started()
                number = 0
                while not done:
                    number += 1
                    await echoes(peer, f"during {number}")
                await echoes(peer, "after")

            done = False
            await nursery.start(during)
            yield
            done = True

    async def until_open(self, count: int) -> None:
        """Wait until exactly `count` connections are open."""
        while self.listener.statistics().open != count:
            await trio.lowlevel.checkpoint()

    def ended(self, name: str) -> int:
        return self.listener.statistics().ended.get(name, 0)


async def echoes(peer: WebSocketConnection, text: str) -> None:
    with trio.fail_after(5):
        await peer.send_message(text)
        assert await peer.get_message() == text


@asynccontextmanager
async def serving(options: WireOptions = OPTIONS, app: Any = None) -> AsyncIterator[Served]:
    """The listener on a free port; it is cancelled in the end and must leave nothing open."""
    seen = Seen()
    listener = Listener(app or echo_app(seen), options)
    listeners = await open_listeners(HOST, 0)
    port = listeners[0].socket.getsockname()[1]
    returned = trio.Event()

    async def run(task_status: trio.TaskStatus[None]) -> None:
        await listener.run(listeners, task_status=task_status)
        returned.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield Served(listener, port, seen, returned)
        nursery.cancel_scope.cancel()
    assert listener.statistics().open == 0


@attrs.define
class Simulated:
    """The listener without sockets: connections are memory streams, time is the mock clock."""

    listener: Listener
    seen: Seen
    nursery: trio.Nursery
    ends: list[trio.Event] = attrs.field(factory=list)

    def connect(self, *, lockstep: bool = False) -> Raw:
        client, server = lockstep_stream_pair() if lockstep else memory_stream_pair()
        self.ends.append(end := trio.Event())

        async def serve() -> None:
            await self.listener.serve_stream(server, ("memory", 1))
            end.set()

        self.nursery.start_soon(serve)
        return Raw(client)

    async def over(self) -> float:
        """Wait until every connection has ended; returns how long that took."""
        start = trio.current_time()
        for end in self.ends:
            await end.wait()
        assert self.listener.statistics().open == 0
        return trio.current_time() - start

    @property
    def ended(self) -> dict[str, int]:
        return dict(self.listener.statistics().ended)


@asynccontextmanager
async def simulated(options: WireOptions = OPTIONS, app: Any = None) -> AsyncIterator[Simulated]:
    seen = Seen()
    with trio.fail_after(100_000):
        async with trio.open_nursery() as nursery:
            yield Simulated(Listener(app or echo_app(seen), options), seen, nursery)
            nursery.cancel_scope.cancel()


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=0.001)
