"""Audio faster than the engine, and an engine that stands still."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.connection.fakes import connected, house
from tests.engine.scripted import FRAME, FRAME_BYTES, Script, speech, transcript
from voxtral_actors.connection.backlog import Backlog
from voxtral_actors.limits import INBOUND_MESSAGES, SAMPLE_RATE
from voxtral_actors.protocol import events

SECOND = 2 * SAMPLE_RATE


async def test_p10_a_fast_client_is_paused_and_nothing_is_lost() -> None:
    """A minute of audio at once, against an engine that takes half of the backlog in a second."""
    pcm = speech(60)
    async with connected(Script(step_s=0.04), max_audio_backlog_s=4) as connection:
        client, transport = connection.client, connection.transport
        most_waiting = 0
        client.start("a")
        for start in range(0, len(pcm), FRAME_BYTES):
            client.audio(pcm[start : start + FRAME_BYTES])
        client.finalise("a")
        await wait_all_tasks_blocked()
        assert len(transport.unread) > 600, "the reader does not take what it cannot pass on"
        (stream,) = connection.house.streams
        while transport.unread:
            await trio.sleep(0.04)
            most_waiting = max(most_waiting, stream.fed // 2 - stream.consumed)
        done = await client.hear(events.Done, "a")
        assert trio.current_time() == pytest.approx(60 / 2)

        assert stream.fed == len(pcm)
        assert 4 * SAMPLE_RATE < most_waiting <= 4 * SAMPLE_RATE + 2 * FRAME
        assert done.text == transcript(pcm)


async def test_p10_an_engine_that_stands_still_ends_the_utterance_and_the_reader_goes_on() -> None:
    async with connected(
        Script(slots=2),
        [Script(hang_after=0)],
        max_audio_backlog_s=4,
        backpressure_timeout_s=30,
        replay_budget_s=0,
    ) as connection:
        client = connection.client
        await trio.sleep(5)
        client.start("a")
        for _ in range(20):
            client.audio(speech(1))
        client.finalise("a")
        client.utter("b", speech(1))
        await wait_all_tasks_blocked()
        # Five seconds are at the engine. A message waits in each hand, and some in each channel.
        assert len(connection.transport.unread) > 20 - 5 - 2 * INBOUND_MESSAGES
        error = await client.hear(events.Error, "a")
        assert trio.current_time() == 5 + 30

        assert (error.code, error.reason_code) == ("backlog_exceeded", "audio_backlog_full")
        assert error.details == {"waiting_s": 5, "timeout_s": 30}
        assert (await client.hear(events.Done, "b")).text == transcript(speech(1))
        assert trio.current_time() == 5 + 30
        assert client.slugs() == ["audio_backlog_full"], "later audio for it is no error"
        assert connection.house.streams[0].aborted


async def test_p10_any_progress_starts_the_patience_anew() -> None:
    async with connected(
        Script(step_s=29, hang_after=4 * FRAME),
        max_audio_backlog_s=4,
        backpressure_timeout_s=30,
        replay_budget_s=0,
    ) as connection:
        connection.client.start("a")
        connection.client.audio(speech(9))
        await connection.client.hear(events.Error, "a")
        assert trio.current_time() == 4 * 29 + 30


async def test_p10_the_same_progress_again_is_none() -> None:
    """An engine that repeats itself stands still."""
    backlog = Backlog(limit=4, patience=30)
    backlog.feed(5 * SAMPLE_RATE)
    backlog.progress(100)
    await trio.sleep(10)
    backlog.progress(100)
    backlog.progress(50)
    assert backlog.deadline == 30
    backlog.progress(101)
    assert backlog.deadline == 40


async def test_p10_an_engine_cannot_use_audio_that_it_was_not_given() -> None:
    backlog = Backlog(limit=4, patience=30)
    backlog.feed(SAMPLE_RATE)
    backlog.progress(1000 * SAMPLE_RATE)
    backlog.feed(5 * SAMPLE_RATE)
    assert backlog.full
    assert backlog.waiting_s == 5


async def test_p10_a_small_backlog_is_full_before_an_engine_counts_as_behind() -> None:
    """Reading must not be paused without end for less audio than a healthy engine may keep."""
    async with connected(
        Script(hang_after=0),
        max_audio_backlog_s=0.5,
        backpressure_timeout_s=30,
        replay_budget_s=0,
        idle_timeout_s=0,
    ) as connection:
        connection.client.utter("a", speech(3))
        error = await connection.client.hear(events.Error, "a")
        assert trio.current_time() == 30

    assert error.reason_code == "audio_backlog_full"


async def test_p11_an_engine_that_stands_still_at_the_end() -> None:
    async with connected(
        Script(hang_after=FRAME), backpressure_timeout_s=30, replay_budget_s=0
    ) as connection:
        client = connection.client
        client.start("a")
        client.audio(speech(0.5))
        await trio.sleep(100)
        client.finalise("a")
        error = await client.hear(events.Error, "a")
        assert trio.current_time() == 100 + 30

    assert (error.code, error.reason_code) == ("engine_unavailable", "engine_stalled")
    assert error.details["timeout_s"] == 30


async def test_p11_a_stalled_tail_holds_up_nobody() -> None:
    async with connected(
        Script(step_s=0.08), [Script(hang_after=0)], max_audio_backlog_s=4, replay_budget_s=0
    ) as connection:
        client = connection.client
        client.utter("stuck", speech(3, 1))
        for seed in range(5):
            client.utter(f"u{seed}", speech(1, seed))
            assert (await client.hear(events.Done, f"u{seed}")).text == transcript(speech(1, seed))
        assert trio.current_time() < 10
        await client.hear(events.Error, "stuck")

        assert client.slugs() == ["engine_stalled"]


async def test_p10_other_connections_do_not_notice() -> None:
    async with (
        house(Script(step_s=0.04), [Script(hang_after=0)]) as here,
        here.connect(max_audio_backlog_s=4) as stuck,
        here.connect() as other,
    ):
        stuck.client.start("a")
        for _ in range(20):
            stuck.client.audio(speech(1))
        await wait_all_tasks_blocked()
        other.client.utter("a", speech(1))
        await other.client.hear(events.Done, "a")
        assert trio.current_time() == pytest.approx(0.52)
        assert stuck.client.alive["a"]


async def test_a_pause_in_speech_is_no_stall() -> None:
    """The engine has all that it needs to go on, and it is not its turn."""
    async with connected(
        Script(step_s=0.08), idle_timeout_s=0, max_duration_s=0, backpressure_timeout_s=5
    ) as connection:
        client = connection.client
        client.start("a")
        for seed in range(3):
            client.audio(speech(2, seed)[:-2])
            await trio.sleep(3600)
        client.finalise("a")
        done = await client.hear(events.Done, "a")

    assert done.text == transcript(b"".join(speech(2, seed)[:-2] for seed in range(3)))


async def test_zero_waits_for_the_engine_for_ever() -> None:
    async with connected(
        Script(hang_after=0), idle_timeout_s=0, max_duration_s=0, backpressure_timeout_s=0
    ) as connection:
        connection.client.utter("a", speech(20))
        await trio.sleep(86_400)
        assert connection.client.alive["a"]
        connection.client.cancel("a")
        await connection.client.hear(events.Cancelled, "a")


async def test_p11_the_timers_reach_a_connection_whose_reading_is_paused() -> None:
    async with connected(
        Script(hang_after=0), max_audio_backlog_s=1, max_duration_s=10, close_grace_s=1
    ) as connection:
        connection.client.start("a")
        for _ in range(30):
            connection.client.audio(speech(1))
        await connection.ended()
        assert trio.current_time() == 11

    assert connection.client.the(events.Cancelled, "a").reason == "max_duration"


async def test_p11_a_process_that_stood_still_does_not_blame_the_engine() -> None:
    """After it every deadline is past, but what the engine has to say may be waiting beside it."""
    async with connected(Script(step_s=0.08), backpressure_timeout_s=5) as connection:
        client = connection.client
        client.start("a")
        client.audio(speech(4))
        await trio.sleep(1)
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        clock.jump(60)  # nothing ran meanwhile
        client.finalise("a")
        await client.hear(events.Done, "a")

    assert client.slugs() == []
