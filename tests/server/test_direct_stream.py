"""The stream of an accepted socket: what goes out at once, what waits, and in which order."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.server.wire_helpers import OPTIONS
from voxtral_actors.server.direct_stream import DirectStream
from voxtral_actors.server.guarded_stream import Ending, GuardedStream

MUCH = bytes(range(256)) * 65_536
"""16 MiB, more than any socket's buffers take."""


@asynccontextmanager
async def sockets() -> AsyncIterator[tuple[DirectStream, trio.SocketStream]]:
    (near, far) = (trio.SocketStream(end) for end in trio.socket.socketpair())
    with trio.fail_after(20):
        async with near, far:
            yield DirectStream(near), far


@asynccontextmanager
async def guarded() -> AsyncIterator[tuple[GuardedStream, trio.SocketStream]]:
    async with sockets() as (stream, peer), trio.open_nursery() as nursery:
        guard = GuardedStream(stream, OPTIONS, trio.CapacityLimiter(1))
        guard.admit()

        async def discard(_: bytes) -> None:
            await trio.lowlevel.checkpoint()

        async def read(_: trio.Nursery) -> None:
            await guard.read(discard)

        nursery.start_soon(guard.run, read)
        yield guard, peer
        nursery.cancel_scope.cancel()


async def receive(peer: trio.SocketStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += await peer.receive_some()
    return bytes(data)


async def test_what_has_room_is_sent_without_a_turn_of_the_loop() -> None:
    async with sockets() as (stream, peer):
        assert stream.send_now(b"now") == 3
        assert await peer.receive_some() == b"now"


async def test_what_has_no_room_is_left_to_the_caller() -> None:
    async with sockets() as (stream, peer):
        taken = stream.send_now(MUCH)
        assert 0 < taken < len(MUCH)
        assert stream.send_now(b"more") == 0
        assert await receive(peer, taken) == MUCH[:taken]


async def test_what_comes_is_received_and_so_is_the_end() -> None:
    async with sockets() as (stream, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send_all, b"hello")
            assert await stream.receive_some(65_536) == b"hello"
        await peer.send_eof()
        assert await stream.receive_some(65_536) == b""
        await stream.send_eof()
        assert await peer.receive_some() == b""


async def test_a_stream_that_is_closed_or_lost_is_broken() -> None:
    async with sockets() as (stream, peer):
        stream.send_now(b"unread")  # so that closing the other end resets this one
        await peer.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some(65_536)
        with pytest.raises(trio.BrokenResourceError):
            stream.send_now(b"x")
    with pytest.raises(trio.BrokenResourceError):
        stream.send_now(b"x")


async def test_a_message_that_is_sent_meanwhile_comes_behind_a_long_one() -> None:
    received = bytearray()
    async with guarded() as (guard, peer):

        async def take() -> None:
            received.extend(await receive(peer, len(MUCH) + 6 - len(received)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard.send_all, MUCH)
            await trio.testing.wait_all_tasks_blocked()
            # From here on there is room again, and who waits for it has not noticed.
            received += os.read(peer.socket.fileno(), len(MUCH))
            nursery.start_soon(take)
            await guard.send_all(b"behind")
        assert received == MUCH + b"behind"
        assert guard.bytes_out == len(MUCH) + 6


async def test_a_cancelled_sender_does_not_tear_its_message() -> None:
    async with guarded() as (guard, peer), trio.open_nursery() as nursery:
        nursery.start_soon(guard.send_all, MUCH)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        assert guard.ending is None
        with trio.CancelScope(shield=True):
            assert await receive(peer, len(MUCH)) == MUCH


async def test_a_send_to_a_peer_that_is_gone_ends_the_connection() -> None:
    async with sockets() as (stream, peer):
        guard = GuardedStream(stream, OPTIONS, trio.CapacityLimiter(1))
        await peer.aclose()
        await guard.send_all(b"x")  # nobody reads, so nobody else can have noticed
        assert guard.ending is Ending.CLIENT_LEFT
