"""P5 and P6 against a real server process: storms of resets, aborts and half handshakes."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from tests.chaos.real_harness import (
    WHOLE_REQUEST,
    calm,
    figures,
    many_descriptors,
    raw_socket,
    scripted_server,
)
from tests.engine.script import speech
from tests.server.server_process import ServerProcess
from tests.server.wire_client import LINGER_ZERO, Client
from tests.server.wire_helpers import TEXT, frame, upgrade_request
from voxtral_actors.limits import HANDSHAKE_S, MAX_UNADMITTED_SOCKETS

ROOM = 4
AT_ONCE = 40
"""More than the server has room for, so that some are refused while they hang up."""

Way = Callable[[ServerProcess, random.Random], Awaitable[None]]


async def cut_handshake(server: ServerProcess, rng: random.Random) -> None:
    async with raw_socket(server) as raw:
        await raw.send(WHOLE_REQUEST[: rng.randrange(len(WHOLE_REQUEST) + 1)])
        if rng.random() < 0.7:
            _linger_zero(raw.stream)


async def strangers_reset(server: ServerProcess, rng: random.Random) -> None:
    async with raw_socket(server) as raw:
        await raw.send(upgrade_request("/ws?api_key=wrong") + frame(TEXT, b"{}"))
        if rng.random() < 0.5:
            await raw.head()
        _linger_zero(raw.stream)


async def reset_unread(server: ServerProcess, rng: random.Random) -> None:
    """Everything in one go, down to the audio, and gone before the first answer."""
    async with raw_socket(server) as raw:
        client = Client(raw, None)
        await raw.upgrade("/ws", *WHOLE_REQUEST.split(b"\r\n")[6:-2])
        await client.start()
        for _ in range(rng.randrange(20)):
            await client.send(speech(0.08, rng.randrange(1000)))
        _linger_zero(raw.stream)


async def reset_in_speech(server: ServerProcess, rng: random.Random) -> None:
    async with server.connect() as client:
        await client.next()  # session.created, or that there is no room
        await client.start()
        await client.send(bytes(2560))
        if rng.random() < 0.5:
            await client.finish()
        await client.reset()


async def torn_frame(server: ServerProcess, rng: random.Random) -> None:
    async with server.connect() as client:
        whole = frame(TEXT, b"x" * 300)
        await client.raw.send(whole[: rng.randrange(len(whole))])
        if rng.random() < 0.5:
            await client.raw.stream.send_eof()
            await client.raw.gone()


def _linger_zero(stream: trio.abc.HalfCloseableStream) -> None:
    assert isinstance(stream, trio.SocketStream)
    stream.setsockopt(*LINGER_ZERO)


WAYS: list[Way] = [cut_handshake, strangers_reset, reset_unread, reset_in_speech, torn_frame]


@pytest.mark.parametrize(
    "visits", [1_000, pytest.param(10_000, marks=pytest.mark.chaos)], ids=["1k", "10k"]
)
async def test_p5_a_storm_of_resets_leaves_nothing(visits: int, tmp_path: Path) -> None:
    rng = random.Random(visits)
    ways = rng.choices(WAYS, k=visits)

    async def crowd(server: ServerProcess) -> None:
        while ways:
            try:
                await ways.pop()(server, rng)
            except (trio.BrokenResourceError, EOFError):
                continue  # refused and closed while this one was still talking

    with trio.fail_after(20 + visits / 20):
        async with scripted_server(tmp_path, MAX_CONCURRENT_CONNECTIONS=str(ROOM)) as server:
            async with calm(server), trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(crowd, server)
            now = await figures(server)
            print(f"{visits} visits, {now['connections_total']:.0f} of them connections")
            assert now["connections_total"] > visits / 10
            assert now["connections_refused_total{server_at_capacity}"] > 0


async def test_p6_a_thousand_half_handshakes_keep_nobody_out(tmp_path: Path) -> None:
    with trio.fail_after(40), many_descriptors(1_500):
        async with scripted_server(tmp_path, MAX_CONCURRENT_CONNECTIONS="2") as server:
            async with calm(server), AsyncExitStack() as crowd:
                for number in range(1_000):
                    raw = await crowd.enter_async_context(raw_socket(server))
                    await raw.send(WHOLE_REQUEST[: number % (len(WHOLE_REQUEST) - 1)])
                began = trio.current_time()
                async with server.session() as client:
                    await client.alive()
                    took = trio.current_time() - began
                    print(f"in after {1000 * took:.0f} ms beside a thousand half handshakes")
                    assert took < HANDSHAKE_S, "it waited for their end"
                now = await figures(server)
                assert now["sockets_unadmitted"] <= MAX_UNADMITTED_SOCKETS
                await crowd.aclose()
            assert now["sockets_ended_total{pushed_out}"] > 500
