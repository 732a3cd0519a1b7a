"""The wire, row by row, over real sockets: every close, and what leads to it."""

from __future__ import annotations

import pytest
import trio

from tests.engine.scripted import FRAME, Script, speech, transcript
from tests.server.harness import serving, until
from tests.server.wire_client import SESSION, deaf_client, envelope
from voxtral_actors.connection.supervisor import Kind
from voxtral_actors.protocol import session
from voxtral_actors.protocol.events import (
    Cancelled,
    Done,
    Error,
    SessionEnd,
)
from voxtral_actors.protocol.states import Input

PCM = speech(1.0, seed=1)


async def test_p9_too_many_bad_messages_close_4009() -> None:
    with trio.fail_after(10):
        async with (
            serving(WS_MAX_BAD_MESSAGES="3") as server,
            server.bystander(),
            server.session() as client,
        ):
            await client.start("u")
            for bad in ("{", b"\0", envelope("nonsense")):
                await client.alive()
                await client.send(bad)
                await client.hear(Error)
            assert await client.next() == Cancelled(SESSION, "u", "too_many_bad_messages")
            last = await client.refused("invalid_message", "too_many_bad_messages")
            assert last.details == {"retry": False}
            assert await client.closed() == (4009, "too_many_bad_messages")


async def test_p9_0_bad_messages_means_no_limit() -> None:
    off = {"WS_MAX_BAD_MESSAGES": "0", "WS_MAX_MESSAGES_PER_WINDOW": "0"}
    with trio.fail_after(10):
        async with serving(**off) as server, server.session() as client:
            for _ in range(150):
                await client.send("{")
                await client.hear(Error)
            await client.alive()


@pytest.mark.parametrize(
    "message", ["x" * 5000, "é" * 2500, b"x" * 5000], ids=["text", "UTF-8", "binary"]
)
async def test_p9_a_message_over_the_limit_closes_1009(message: str | bytes) -> None:
    with trio.fail_after(10):
        async with (
            serving(WS_MAX_MESSAGE_BYTES="4096") as server,
            server.bystander(),
            server.session() as client,
        ):
            await client.start("u")
            await client.send(b"\0" * 4096)  # exactly the limit
            await client.alive()
            await client.send(message)
            assert await client.closed() == (1009, "message_too_big")
            await until(lambda: server.admission.open == 1, "the connection is not over")


async def test_idle_closes_4000() -> None:
    with trio.fail_after(10):
        async with serving(WS_IDLE_TIMEOUT_S="0.4") as server, server.session() as client:
            opened = trio.current_time()
            for _ in range(4):  # any message counts
                await trio.sleep(0.15)
                await client.alive()
            last = trio.current_time()
            end = await client.hear(SessionEnd)
            assert end == SessionEnd(SESSION, "connection", "idle_timeout")
            assert await client.closed() == (4000, "idle_timeout")
            assert trio.current_time() - opened > 0.95
            assert 0.35 < trio.current_time() - last < 2


async def test_text_is_no_idleness() -> None:
    """The client is silent, but the engine is still at its audio, and its words arrive."""
    with trio.fail_after(10):
        async with (
            serving(Script(step_s=0.05), WS_IDLE_TIMEOUT_S="0.4") as server,
            server.session() as client,
        ):
            await client.start()
            await client.send(PCM)  # 13 frames: 0.65 s
            await client.finish()
            assert (await client.hear_past_deltas(Done)).text == transcript(PCM)
            await client.hear(SessionEnd)
            assert await client.closed() == (4000, "idle_timeout")


async def test_max_duration_closes_4003_after_the_last_text() -> None:
    with trio.fail_after(10):
        async with (
            serving(Script(step_s=0.01), WS_MAX_CONNECTION_DURATION_S="0.4") as server,
            server.session() as client,
        ):
            await client.start()
            await client.send(PCM)  # and never finalises it
            assert (await client.hear_past_deltas(Done)).text == transcript(PCM)
            await client.hear(SessionEnd)
            assert await client.closed() == (4003, "max_duration")


async def test_max_duration_waits_for_the_last_text_no_longer_than_the_grace() -> None:
    short = {"WS_MAX_CONNECTION_DURATION_S": "0.1", "WS_CLOSE_GRACE_S": "0.2"}
    with trio.fail_after(10):
        async with (
            serving(Script(hang_after=2 * FRAME), **short) as server,
            server.session() as client,
        ):
            await client.start("u")
            await client.send(PCM)
            cancelled = await client.hear_past_deltas(Cancelled)
            assert cancelled == Cancelled(SESSION, "u", "max_duration")
            await client.hear(SessionEnd)
            assert await client.closed() == (4003, "max_duration")


async def test_0_turns_idle_and_duration_off() -> None:
    off = {"WS_IDLE_TIMEOUT_S": "0", "WS_MAX_CONNECTION_DURATION_S": "0"}
    with trio.fail_after(10):
        async with serving(**off) as server, server.session() as client:
            await trio.sleep(0.3)
            await client.alive()


async def test_p3_a_client_that_stops_reading_is_cut_and_its_slot_is_free() -> None:
    settings = {"WS_WRITE_DEADLINE_S": "0.4", "MAX_CONCURRENT_CONNECTIONS": "2"}
    with trio.fail_after(15):
        async with serving(**settings) as server, server.bystander():
            async with deaf_client(server.port):
                await until(lambda: server.admission.open == 1, "the slot is not free")
                async with server.session() as next_one:
                    await next_one.alive()
            assert server.running.service.outcomes[Kind.CLIENT_FAULT.value, "slow_consumer"] == 1


async def test_p10_an_engine_that_stalls_on_a_backlog_ends_the_utterance() -> None:
    settings = {
        "WS_MAX_AUDIO_BACKLOG_S": "1.5",
        "WS_BACKPRESSURE_TIMEOUT_S": "0.3",
        "VOXTRAL_REPLAY_BUDGET_S": "0",
    }
    with trio.fail_after(10):
        async with (
            serving(Script(hang_after=0), **settings) as server,
            server.session() as client,
        ):
            await client.start("u")
            for _ in range(4):
                await client.send(PCM)
            error = await client.refused("backlog_exceeded", "audio_backlog_full")
            assert error.request_id == "u"
            assert error.details["timeout_s"] == 0.3
            await client.alive()  # what was read after that is ignored: it was on its way


async def test_p11_an_engine_that_hangs_on_the_last_word_ends_the_utterance() -> None:
    with trio.fail_after(10):
        async with (
            serving(Script(hang_after=FRAME), WS_BACKPRESSURE_TIMEOUT_S="0.3") as server,
            server.session() as client,
        ):
            await client.start("u")
            await client.send(PCM)
            await client.finish("u")
            error = await client.hear_past_deltas(Error)
            assert (error.code, error.reason_code) == ("engine_unavailable", "engine_stalled")
            assert error.request_id == "u"
            await client.alive()


async def test_p10_audio_faster_than_the_engine_is_all_heard() -> None:
    pcm = speech(8.0, seed=5)
    with trio.fail_after(10):
        async with (
            serving(Script(step_s=0.002), WS_MAX_AUDIO_BACKLOG_S="1") as server,
            server.session() as client,
        ):
            await client.start("u")
            for start in range(0, len(pcm), 3200):
                await client.send(pcm[start : start + 3200])
            await client.finish("u")
            done = await client.hear_past_deltas(Done)
            assert done.text == transcript(pcm)
            assert done.usage.audio_seconds == 8.0


async def test_p17_our_own_bug_is_1011_and_one_connections_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bug(*_: object) -> list[object]:
        raise RuntimeError("on purpose")

    with trio.fail_after(10):
        async with serving() as server, server.bystander(), server.session() as client:
            monkeypatch.setitem(session.HANDLERS, Input.PING, bug)
            await client.start()
            await client.say("ping")
            error = await client.refused("internal_error", "internal_error")
            assert error.details == {"retry": True}
            assert "on purpose" not in error.message
            assert await client.closed() == (1011, "internal_error")
            assert server.running.service.outcomes["bug", "internal_error"] == 1
