"""The wire, row by row, over real sockets: the message and cancel windows."""

from __future__ import annotations

import trio

from tests.engine.scripted import speech, transcript
from tests.server.harness import serving
from tests.server.wire_client import SESSION, Client
from voxtral_actors.protocol.events import (
    Cancelled,
    Done,
    Error,
    SessionEnd,
    SessionUpdated,
)

PCM = speech(1.0, seed=1)
LIMIT_S = 10
WINDOW_S = 60.0
"""Longer than a test may take: what was taken counts to its end."""
TINY = b"\x01\x02" * 319  # just under 20 ms
SMALL = b"\x01\x02" * 320


async def limited(client: Client, kind: str, limit: int) -> None:
    """The next event is the refusal of one message."""
    error = await client.refused("rate_limited", f"{kind}_rate_limited")
    retry_in = error.details.pop("retry_in")
    assert error.details == {"limit": limit, "window_seconds": WINDOW_S, "kind": kind}
    assert isinstance(retry_in, float)
    assert WINDOW_S - LIMIT_S <= retry_in <= WINDOW_S


async def test_messages_beyond_the_window_are_not_acted_on() -> None:
    window = {"WS_MAX_MESSAGES_PER_WINDOW": "3", "WS_MESSAGE_WINDOW_SECONDS": "60"}
    with trio.fail_after(LIMIT_S):
        async with serving(**window) as server, server.bystander(), server.session() as client:
            for _ in range(3):
                await client.say("session.update")
                await client.hear(SessionUpdated)
            await client.start("u")
            await limited(client, "message", 3)
            await client.send("not even JSON")
            await limited(client, "message", 3)
            for _ in range(10):
                await client.alive()  # pings are never limited
            await client.say("cancel", "u")  # cancels have a window of their own
            assert await client.next() == Cancelled(SESSION, "u", "no_active_request")
            assert server.engine.statistics().streams_opened == 1  # the bystander's
            await client.say("end", "bye")  # never limited either
            assert await client.next() == SessionEnd(SESSION, "bye", "end")
            assert await client.closed() == (1000, "end")


async def test_cancels_have_a_window_of_their_own() -> None:
    window = {"WS_MAX_CANCELS_PER_WINDOW": "2", "WS_CANCEL_WINDOW_SECONDS": "60"}
    with trio.fail_after(LIMIT_S):
        async with serving(**window) as server, server.session() as client:
            await client.start("u")
            for _ in range(2):
                await client.say("cancel", "other")
                await client.hear(Cancelled)
            await client.start("u")
            await client.say("cancel", "u")
            await limited(client, "cancel", 2)
            await client.send(PCM)  # so the utterance lives on
            await client.finish("u")
            assert (await client.hear_past_deltas(Done)).text == transcript(PCM)


async def test_a_window_opens_again_when_the_refusal_says() -> None:
    window = {"WS_MAX_MESSAGES_PER_WINDOW": "1", "WS_MESSAGE_WINDOW_SECONDS": "1"}
    with trio.fail_after(LIMIT_S):
        async with serving(**window) as server, server.session() as client:
            event: object = None
            while not isinstance(event, Error):  # a slow machine may be refused nothing at first
                await client.say("session.update")
                event = await client.next()
            retry_in = event.details["retry_in"]
            assert isinstance(retry_in, float)
            await trio.sleep(retry_in)
            await client.say("session.update")
            await client.hear(SessionUpdated)


async def test_audio_of_20_ms_does_not_count_and_less_does() -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(WS_MAX_MESSAGES_PER_WINDOW="3") as server, server.session() as client:
            await client.start("u")
            for _ in range(20):
                await client.send(SMALL)
            for _ in range(2):
                await client.send(TINY)
            await client.send(TINY)
            error = await client.hear_past_deltas(Error)
            assert error.reason_code == "message_rate_limited"
            assert error.request_id == "connection"
            await client.say("input_audio_buffer.append", "u", audio="AAAA" * 4)
            error = await client.hear_past_deltas(Error)
            assert (error.code, error.reason_code) == ("rate_limited", "message_rate_limited")
            heard = 20 * len(SMALL) + 2 * len(TINY)
            assert sum(part.fed for part in server.scripted.streams) == heard


async def test_a_live_stream_never_trips_the_window() -> None:
    """More chunks than the limit, and a window that none of them can leave."""
    with trio.fail_after(LIMIT_S):
        async with serving(WS_MESSAGE_WINDOW_SECONDS="3600") as server, server.session() as client:
            pcm = speech(80 * 0.4, seed=4)
            await client.start("u")
            for start in range(0, len(pcm), 2560):
                await client.send(pcm[start : start + 2560])
            await client.finish("u")
            assert (await client.hear_past_deltas(Done)).text == transcript(pcm)


async def test_0_turns_the_windows_off() -> None:
    off = {"WS_MAX_MESSAGES_PER_WINDOW": "0", "WS_MAX_CANCELS_PER_WINDOW": "0"}
    with trio.fail_after(LIMIT_S):
        async with serving(**off) as server, server.session() as client:
            for _ in range(250):
                await client.say("session.update")
                await client.hear(SessionUpdated)
                await client.say("cancel")
                await client.hear(Cancelled)
