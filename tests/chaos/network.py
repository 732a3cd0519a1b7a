"""A network in memory, on trio's clock: streams that behave like TCP sockets, with toxics.

    network = Network(seed)
    listener = network.listen()  # for `Listener.run`, in the place of a listening socket
    stream = await network.connect(Toxics(latency_s=0.1, cuts=3))  # the client's end
    stream.vanish()  # the cable is pulled: both ends are told nothing
    stream.reset()  # a RST, as from a process that was killed

There are no tasks in here (see `pipe.py`), so a network can be used inside any nursery and leaves
nothing behind. All chance comes from the seed and the number of the connection.

What TCP does and careless servers trip over, a test may rely on:

1. Room is bounded in each direction. A writer whose peer does not read waits.
2. What was written before an EOF arrives before it; the other direction stays open (`send_eof`).
3. Who closes a socket with unread input resets the connection. A reset destroys what is under way
   in both directions; what has arrived can still be read, as on Linux, and then the reader gets
   `trio.BrokenResourceError`. A writer gets it at once.
4. Writing to a peer that has closed is answered by a reset, which arrives behind what it sent.
"""

from __future__ import annotations

import random
import socket
from typing import Final, TypeAlias

import attrs
import trio

from tests.chaos.pipe import Link, Pipe
from tests.chaos.toxics import CLEAN, Toxics

BACKLOG: Final = 128
"""Connections that wait to be accepted; one more waits outside."""
PORT: Final = 8000
Address: TypeAlias = tuple[str, int]


@attrs.frozen
class Names:
    """What a server asks of a socket: the addresses of both ends."""

    peer: Address
    family: socket.AddressFamily = socket.AF_INET

    def getpeername(self) -> Address:
        return self.peer

    def getsockname(self) -> Address:
        return "127.0.0.1", PORT


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection."""

    def __init__(self, link: Link, inbound: Pipe, outbound: Pipe) -> None:
        self.link = link
        self.socket = Names(("10.0.0.1", link.number))
        self._inbound = inbound
        self._outbound = outbound
        self._sending = self._receiving = False

    def send_now(self, data: bytes) -> int:
        return self._outbound.write_now(data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            await self._outbound.write(bytes(data))
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._outbound.writer_closed:
            raise trio.ClosedResourceError
        if self.link.broken:
            raise trio.BrokenResourceError
        self._outbound.end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._receiving = True
        try:
            return await self._inbound.receive(max_bytes or 65_536)
        finally:
            self._receiving = False

    async def aclose(self) -> None:
        self.abandon()
        await trio.lowlevel.checkpoint()

    def abandon(self) -> None:
        """Close the socket, as the kernel does for a process that has ended; safe to call twice."""
        if not self._inbound.reader_closed:
            if self._inbound.unread:
                self.link.reset()
            elif not self.link.broken:
                self._outbound.end()
            self._inbound.reader_closed = self._outbound.writer_closed = True
            self._inbound.wake()
            self._outbound.wake()

    def reset(self) -> None:
        """End the connection with a RST; this end is closed with it."""
        self.link.reset()
        self._inbound.reader_closed = self._outbound.writer_closed = True
        self._inbound.wake()
        self._outbound.wake()

    def vanish(self) -> None:
        """From now on nothing arrives, neither way, and nobody is told."""
        self.link.darken()


class MemoryListener(trio.abc.Listener[MemoryStream]):
    """The server's side of a network."""

    socket = Names(("0.0.0.0", 0))  # noqa: S104 - nothing is bound

    def __init__(self, arrivals: trio.MemoryReceiveChannel[MemoryStream]) -> None:
        self._arrivals = arrivals

    async def accept(self) -> MemoryStream:
        return await self._arrivals.receive()

    async def aclose(self) -> None:
        while True:  # who was not accepted yet is turned away
            try:
                self._arrivals.receive_nowait().reset()
            except (trio.WouldBlock, trio.ClosedResourceError, trio.EndOfChannel):
                break
        self._arrivals.close()
        await trio.lowlevel.checkpoint()


class Network:
    """One server's network; `links` are all connections there ever were, in order."""

    def __init__(self, seed: object) -> None:
        self.links: list[Link] = []
        self._seed = seed
        self._arrivals, accepted = trio.open_memory_channel[MemoryStream](BACKLOG)
        self._listener = MemoryListener(accepted)

    def listen(self) -> MemoryListener:
        return self._listener

    async def connect(self, toxics: Toxics = CLEAN) -> MemoryStream:
        """Open a connection.

        Raises:
            OSError: nobody listens any more.
        """
        number = len(self.links) + 1
        link = Link(number, toxics, random.Random(f"{self._seed}/link/{number}"))
        self.links.append(link)
        await trio.sleep(toxics.latency_s)
        try:
            await self._arrivals.send(MemoryStream(link, link.upward, link.downward))
        except trio.BrokenResourceError:
            raise ConnectionRefusedError("nobody listens") from None
        return MemoryStream(link, link.downward, link.upward)
