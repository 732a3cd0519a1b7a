"""Every wait on a peer ends on time, and the app hears why: proved to the second on a mock clock.

The peers here are memory streams; `lockstep` ones take a byte only when the test reads it, which is
what a socket does whose peer has stopped reading. What depends on a kernel (buffers, resets) is
tested over real sockets with short deadlines.
"""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.server.wire_helpers import (
    BINARY,
    OPTIONS,
    PING,
    PONG,
    TEXT,
    about,
    frame,
    serving,
    simulated,
    upgrade_request,
)
from voxtral_actors import limits
from voxtral_actors.server.wire import current_wire

GET = b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n"


HALF = {
    "nothing": b"",
    "half a request": b"GET / HTTP/1.1\r\nHos",
    "body to come": b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf",
    "answer to come": GET % b"/slow",
    "not accepted": upgrade_request("/undecided"),
}


@pytest.mark.parametrize("request_bytes", HALF.values(), ids=HALF.keys())
async def test_p6_a_handshake_has_a_deadline(
    request_bytes: bytes, autojump_clock: MockClock
) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.send(request_bytes)
        assert await server.over() == about(limits.HANDSHAKE_S)
        assert server.ended == {"handshake_timeout": 1}
        assert server.seen.endings in ([], ["handshake_timeout"])


async def test_p6_an_accepted_socket_that_is_not_admitted_has_the_same_deadline(
    autojump_clock: MockClock,
) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade("/unknown-peer")
        for _ in range(3):  # talking does not help
            await trio.sleep(1)
            await raw.send(frame(TEXT, b"x"))
        assert await server.over() == about(limits.HANDSHAKE_S - 3)
        assert server.ended == {"handshake_timeout": 1}
        assert server.seen.endings == ["handshake_timeout"]


async def test_last_words_after_a_deadline_are_too_late(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade("/last-words")
        assert await server.over() == about(limits.HANDSHAKE_S)
        assert server.ended == {"handshake_timeout": 1}
        assert server.seen.endings == ["handshake_timeout"]
        with pytest.raises(EOFError):
            await raw.frame()


@pytest.mark.parametrize("path", ["/ws", "/healthz"])
async def test_p6_not_reading_does_not_stretch_the_handshake(
    path: str, autojump_clock: MockClock
) -> None:
    async with simulated(attrs.evolve(OPTIONS, write_deadline_s=60.0)) as server:
        raw = server.connect(lockstep=True)
        await raw.send(upgrade_request(path))  # and its answer is never read
        assert await server.over() == about(limits.HANDSHAKE_S)
        assert server.ended == {"handshake_timeout": 1}


async def test_admission_frees_a_send_that_is_under_way_too(autojump_clock: MockClock) -> None:
    async def app(_scope: object, _receive: object, send: Any) -> None:
        await send({"type": "websocket.accept"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, {"type": "websocket.send", "text": "hello"})
            await trio.sleep(1)
            current_wire.get().admit()

    options = attrs.evolve(OPTIONS, write_deadline_s=60.0, ping_interval_s=1000.0)  # one ping
    async with simulated(options, app) as server:
        raw = server.connect(lockstep=True)
        await raw.upgrade()
        await trio.sleep(limits.HANDSHAKE_S + 5)
        assert await raw.frame() == (TEXT, b"hello")


async def test_a_kept_alive_http_connection_ends_between_requests(
    autojump_clock: MockClock,
) -> None:
    async with simulated() as server:
        raw = server.connect()
        for _ in range(3):
            await raw.send(GET % b"/healthz")
            assert (await raw.head()).startswith(b"HTTP/1.1 200 ")
            assert await raw.take(2) == b"ok"
            await trio.sleep(1)
        assert await server.over() == about(limits.HANDSHAKE_S - 3)
        assert server.ended == {"idle": 1}


async def test_an_admitted_socket_has_no_deadline(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade()
        for _ in range(200):
            await trio.sleep(limits.PEER_SILENCE_S - 1)
            await raw.send(frame(PONG))
        await raw.send(frame(TEXT, b"still here"))
        assert await raw.frame() == (TEXT, b"still here")
        assert server.listener.statistics().admitted == 1


async def test_an_admitted_peer_is_pinged_now_and_then(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade()
        start = trio.current_time()
        for number in range(1, 6):
            assert (await raw.frame(skip=()))[0] == PING
            assert trio.current_time() - start == about(number * limits.PING_INTERVAL_S)
            await raw.send(frame(PONG))


async def test_p4_a_black_holed_peer_is_cut(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade()
        assert await server.over() == about(limits.PEER_SILENCE_S)
        assert server.ended == {"peer_silent": 1}
        assert server.seen.endings == ["peer_silent"]


async def test_p4_silence_is_counted_from_the_last_byte(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade()
        await trio.sleep(30)
        await raw.send(frame(PONG)[:1])  # any byte is a sign of life
        assert await server.over() == about(limits.PEER_SILENCE_S)


async def test_p4_time_in_which_we_do_not_read_is_not_silence(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade("/deaf")
        for _ in range(40):  # more than the queues in front of the app hold
            await raw.send(frame(TEXT, b"x"))
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(10 * limits.PEER_SILENCE_S)
        assert server.listener.statistics().open == 1


async def test_p3_one_write_has_a_deadline(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect(lockstep=True)
        await raw.upgrade("/flood")
        await raw.take(100_000)  # it reads a while, then it stops
        assert await server.over() == about(OPTIONS.write_deadline_s)
        assert server.ended == {"slow_consumer": 1}
        assert server.seen.endings == ["slow_consumer"]


async def test_a_cancelled_send_is_never_torn(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect(lockstep=True)
        await raw.upgrade("/impatient")
        await trio.sleep(2)  # the app gives its first send one second
        assert await raw.frame() == (BINARY, b"x" * 1000)
        assert await raw.frame() == (TEXT, b"after it")


async def test_abort_cuts_a_stuck_write_at_once(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect(lockstep=True)
        await raw.upgrade("/flood")
        await trio.testing.wait_all_tasks_blocked()
        server.seen.wires[0].abort()
        assert await server.over() < 0.05
        assert server.ended == {"aborted": 1}
        assert server.seen.endings == ["aborted"]
        server.seen.wires[0].abort()  # harmless afterwards


async def test_an_app_that_sends_on_after_the_end_is_stopped(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade("/flood")
        await raw.stream.aclose()
        assert await server.over() < 0.05
        assert server.ended == {"client_left": 1}


async def test_a_wire_knows_its_numbers(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade()
        await raw.send(frame(TEXT, b"hello"))
        await raw.frame()
        await trio.sleep(3)
        (wire,) = server.seen.wires
        numbers = wire.statistics()
        assert numbers.peer == "memory:1"
        assert numbers.age_s == about(3)
        assert numbers.admitted
        assert numbers.ending is None
        assert wire.fault is None
        assert numbers.bytes_in == len(upgrade_request()) + len(frame(TEXT, b"hello"))
        assert numbers.bytes_out > 100


async def test_p3_slow_readers_are_cut_and_others_do_not_notice() -> None:
    options = attrs.evolve(OPTIONS, write_deadline_s=0.4)
    with trio.fail_after(15):
        async with serving(options) as server, server.bystander(), trio.open_nursery() as nursery:

            async def slow_reader() -> None:
                async with server.raw() as raw:
                    await raw.upgrade("/flood")
                    await server.until_open(1)

            start = trio.current_time()
            for _ in range(20):
                nursery.start_soon(slow_reader)
            while server.ended("slow_consumer") < 20:
                await trio.lowlevel.checkpoint()
            assert trio.current_time() - start < 3
            assert server.seen.endings == ["slow_consumer"] * 20
            assert all(wire.bytes_out < 16 * 2**20 for wire in server.seen.wires)
