"""How connections end: the last words arrive, and nobody who stays silent is waited for."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.server.wire_helpers import (
    BINARY,
    CLOSE,
    OPTIONS,
    PING,
    PONG,
    TEXT,
    Raw,
    about,
    close_payload,
    frame,
    serving,
    simulated,
)
from voxtral_actors import limits


async def chatter(raw: Raw) -> None:
    while True:
        await raw.send(frame(TEXT, b"x" * 1000))
        await trio.sleep(0.1)


async def test_p9_after_1009_a_silent_peer_is_cut(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade()
        await raw.send(frame(BINARY, b"x" * (OPTIONS.max_message_bytes + 1)))
        assert await raw.close_frame() == (1009, b"message_too_big")
        await trio.testing.wait_all_tasks_blocked()
        assert server.seen.endings == ["message_too_big"]  # at once, not when the peer leaves
        assert await server.over() == about(limits.CLOSE_HANDSHAKE_S)
        assert server.ended == {"message_too_big": 1}


async def test_p9_an_app_that_does_not_read_hears_of_1009_too(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade("/deaf")
        for _ in range(12):  # the queues in front of the app are full then, and the reader is free
            await raw.send(frame(TEXT, b"x"))
            await trio.testing.wait_all_tasks_blocked()
        await raw.send(frame(BINARY, b"x" * (OPTIONS.max_message_bytes + 1)))
        assert await raw.close_frame() == (1009, b"message_too_big")
        await trio.testing.wait_all_tasks_blocked()
        assert server.seen.endings == ["message_too_big"]


@pytest.mark.parametrize("path", ["/bye", "/close-then-stay"])
async def test_after_our_close_a_silent_peer_is_cut(path: str, autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade(path)
        assert await raw.close_frame() == (4000, b"bye")
        assert await server.over() == about(limits.CLOSE_HANDSHAKE_S)
        assert server.ended == {"close_timeout": 1}


@pytest.mark.parametrize("path", ["/bye", "/close-then-stay"])
async def test_after_our_close_a_chattering_peer_is_cut(
    path: str, autojump_clock: MockClock
) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade(path)
        assert await raw.close_frame() == (4000, b"bye")
        start = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await chatter(raw)
        assert trio.current_time() - start == pytest.approx(limits.CLOSE_HANDSHAKE_S, abs=0.2)


@pytest.mark.parametrize("path", ["/bye", "/close-then-stay"])
async def test_a_peer_that_answers_our_close_and_leaves_is_let_go_at_once(
    path: str, autojump_clock: MockClock
) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade(path)
        await raw.close_frame()
        for _ in range(50):  # nobody reads these: they must not stand before the peer's Close
            await raw.send(frame(TEXT, b"still talking"))
        await raw.send(frame(CLOSE, close_payload(4000)))
        if path == "/bye":
            await raw.stream.send_eof()
        assert await server.over() < 0.05
        assert server.ended == {"closed": 1}


async def test_a_close_by_the_peer_is_answered_and_over_at_once(autojump_clock: MockClock) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.upgrade()
        await raw.send(frame(PING, b"p") + frame(CLOSE, close_payload(1000, b"done")))
        assert await raw.frame() == (PONG, b"p")
        assert await raw.close_frame() == (1000, b"done")
        assert await server.over() < 0.05
        assert server.ended == {"closed": 1}
        assert server.seen.endings == ["closed"]


async def test_the_last_words_arrive_though_input_is_unread() -> None:
    """Closed at once, the socket would be reset over the unread input, and they would be lost."""
    with trio.fail_after(15):
        async with serving() as server, server.raw() as raw:
            await raw.upgrade("/bye")
            for _ in range(200):
                await raw.send(frame(BINARY, b"x" * 10_000))
            assert await raw.frame() == (TEXT, b"last words")
            assert await raw.close_frame() == (4000, b"bye")
            await raw.send(frame(CLOSE, close_payload(4000)))
            assert await raw.rest() == b""


async def test_a_real_client_is_let_go_without_delay() -> None:
    with trio.fail_after(5):
        async with serving() as server:
            start = trio.current_time()
            for _ in range(20):
                async with server.socket() as peer:
                    await peer.send_message("x")
                    await peer.get_message()
                async with server.socket("/bye") as peer:
                    assert await peer.get_message() == "last words"
            await server.until_open(0)
            assert trio.current_time() - start < 1.5
            assert server.ended("closed") == 40
