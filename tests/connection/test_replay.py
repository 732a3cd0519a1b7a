"""An engine that is lost while somebody speaks costs time and nothing else.

Each word of the scripted engine is made of its 80 ms of audio, so a text that is equal to
`transcript` has every word once, wherever the streams that heard it began and ended.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.connection.fakes import Connection, connected, house
from tests.engine.scripted import FRAME, FRAME_BYTES, NEVER, Script, speech, transcript
from voxtral_actors.limits import ENGINE_RESTART_FIRST_S
from voxtral_actors.protocol import events

LIVE = Script(step_s=0.04)
AWAY = Script(step_s=0.04, start_s=20)
"""Each start takes longer than the budgets below."""


async def speak(connection: Connection, pcm: bytes, pace: float = 0.08) -> None:
    """An utterance at live pace, ended but not waited for."""
    client = connection.client
    client.start("a")
    for start in range(0, len(pcm), FRAME_BYTES):
        client.audio(pcm[start : start + FRAME_BYTES], "a")
        await trio.sleep(pace)
    client.finalise("a")


@pytest.mark.parametrize("deaths", [1, 2, 5])
async def test_p15_replay_after_the_engine_died_gives_the_whole_text_once(deaths: int) -> None:
    pcm = speech(60)
    async with connected(LIVE) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(speak, connection, pcm)
        for _ in range(deaths):
            await trio.sleep(9.3)
            connection.house.scripted.kill()
        done = await connection.client.hear(events.Done, "a")

        assert done.text == transcript(pcm)
        assert done.usage.audio_seconds == 60
        assert connection.client.slugs() == []
        assert len(connection.house.streams) == 1 + deaths
        figures = connection.house.figures
        assert (figures.waits, figures.waiting) == (deaths, 0)
        assert figures.replays == {"lost": deaths}
        assert figures.replayed_s > 0


async def test_p15_replay_begins_when_the_engine_is_ready() -> None:
    """And tails are heard again like what is still spoken."""
    async with connected(Script(step_s=0.08, slots=3)) as connection:
        client = connection.client
        client.utter("tail", speech(2, 1))
        client.start("active")
        client.audio(speech(1, 2))
        await trio.sleep(1)
        connection.house.scripted.kill()
        await trio.sleep(0.1)
        client.audio(speech(1, 3))
        client.finalise("active")
        tail, active = [await client.hear(events.Done, name) for name in ("tail", "active")]
        assert trio.current_time() < 1 + ENGINE_RESTART_FIRST_S + 2.2

    assert tail.text == transcript(speech(2, 1))
    assert active.text == transcript(speech(1, 2) + speech(1, 3))


async def test_p15_replay_of_one_stream_does_not_concern_the_others() -> None:
    async with connected(LIVE, [Script(fail_after=3 * FRAME)]) as connection:
        client = connection.client
        client.utter("a", speech(1))
        client.utter("b", speech(1, 2))
        assert (await client.hear(events.Done, "a")).text == transcript(speech(1))
        assert (await client.hear(events.Done, "b")).text == transcript(speech(1, 2))
        assert connection.house.engine.statistics().deaths == 0


async def test_p15_replay_of_a_stream_that_ended_too_early() -> None:
    """A text that looks complete and is not must not pass for the whole."""
    async with connected(LIVE) as connection:
        client = connection.client
        client.start("a")
        client.audio(speech(2))
        await trio.sleep(0.5)
        connection.house.streams[0].finished = True  # nobody has told it to
        await trio.sleep(3)
        client.finalise("a")
        assert (await client.hear(events.Done, "a")).text == transcript(speech(2))
        assert len(connection.house.streams) == 2


async def test_p15_an_utterance_that_starts_while_the_engine_restarts_waits_for_it() -> None:
    async with connected() as connection:
        client = connection.client
        connection.house.scripted.kill()
        await trio.sleep(0.1)
        client.utter("a", speech(1))
        assert (await client.hear(events.Done, "a")).text == transcript(speech(1))
        assert trio.current_time() == pytest.approx(ENGINE_RESTART_FIRST_S)
        assert client.slugs() == []


async def test_p15_an_engine_that_could_not_open_the_stream_is_asked_again() -> None:
    async with connected(streams=[Script(open_raises=True)] * 3) as connection:
        connection.client.utter("a", speech(1))
        done = await connection.client.hear(events.Done, "a")
        assert trio.current_time() == pytest.approx(0.2 + 0.4)

    assert done.text == transcript(speech(1))


async def test_p15_replay_waits_for_a_slot_that_another_took() -> None:
    script = Script(slots=1, step_s=0.04, start_s=1)
    lost = Script(step_s=0.04, fail_after=10 * FRAME)
    async with house(script, [lost]) as here, here.connect() as one, here.connect() as two:
        one.client.start("a")
        one.client.audio(speech(0.5))
        await trio.sleep(0.5)
        one.client.audio(speech(1, 2))
        two.client.utter("b", speech(3, 2))
        assert (await two.client.hear(events.Error, "b")).reason_code == "no_engine_slot"
        one.client.finalise("a")
        with trio.fail_after(3):
            done = await one.client.hear(events.Done, "a")
        assert done.text == transcript(speech(0.5) + speech(1, 2))

        here.scripted.kill()
        await trio.sleep(1)
        one.client.utter("c", speech(4, 3))  # they wait for the same slot, which is no error
        two.client.utter("d", speech(4, 4))
        texts = [
            (await two.client.hear(events.Done, "d")).text,
            (await one.client.hear(events.Done, "c")).text,
        ]
        assert texts == [transcript(speech(4, 4)), transcript(speech(4, 3))]


async def test_p10_an_engine_that_stands_still_gets_one_more_try() -> None:
    stuck = Script(hang_after=FRAME)
    async with connected(LIVE, [stuck], backpressure_timeout_s=30) as connection:
        connection.client.utter("a", speech(2))
        done = await connection.client.hear(events.Done, "a")
        assert trio.current_time() == pytest.approx(30 + 1, abs=0.1)

    assert done.text == transcript(speech(2))


async def test_p10_an_engine_that_stands_still_again_ends_the_utterance() -> None:
    async with connected(Script(hang_after=FRAME), backpressure_timeout_s=30) as connection:
        connection.client.utter("a", speech(2))
        error = await connection.client.hear(events.Error, "a")
        assert trio.current_time() == pytest.approx(60, abs=0.1)

    assert (error.code, error.reason_code) == ("engine_unavailable", "engine_stalled")
    assert len(connection.house.streams) == 2


async def test_p10_a_fast_client_is_paused_while_the_engine_is_away() -> None:
    """What one connection can have kept is bounded, and none of it is lost."""
    pcm = speech(120)
    settings = {"max_audio_backlog_s": 4, "replay_budget_s": 30}
    async with connected(AWAY, **settings) as connection:
        client, transport = connection.client, connection.transport
        client.start("a")
        await trio.sleep(1)
        connection.house.scripted.kill()
        await trio.sleep(1)
        for start in range(0, len(pcm), FRAME_BYTES):
            client.audio(pcm[start : start + FRAME_BYTES])
        client.finalise("a")
        await wait_all_tasks_blocked()
        taken = len(pcm) // FRAME_BYTES - len(transport.unread)
        assert (4 + 30) / 0.08 < taken < (4 + 30) / 0.08 + 20
        done = await client.hear(events.Done, "a")

    assert done.text == transcript(pcm)


async def test_p15_the_time_without_an_engine_is_not_idle() -> None:
    """It has said nothing for 12 seconds when it dies, and is away for 20 more."""
    settings = {"idle_timeout_s": 22, "replay_budget_s": 40, "backpressure_timeout_s": 0}
    async with connected(AWAY, [Script(hang_after=0)], **settings) as connection:
        connection.client.utter("a", speech(2))
        await trio.sleep(12)
        connection.house.scripted.kill()
        assert (await connection.client.hear(events.Done, "a")).text == transcript(speech(2))


async def test_p15_a_process_that_stood_still_grants_the_budget_again() -> None:
    async with connected(Script(step_s=0.04, start_s=3), replay_budget_s=5) as connection:
        connection.client.utter("a", speech(2))
        await trio.sleep(0.5)
        connection.house.scripted.kill()
        await trio.sleep(1)
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        clock.jump(60)
        assert (await connection.client.hear(events.Done, "a")).text == transcript(speech(2))


@pytest.mark.parametrize("seconds", [NEVER, 3])
async def test_p15_replay_with_an_engine_that_dies_again_and_again(seconds: float) -> None:
    script = Script(step_s=0.04, die_at_s=seconds)
    async with connected(script, idle_timeout_s=0, max_messages_per_window=0) as connection:
        client = connection.client
        for seed in range(20):
            client.utter("a", speech(1, seed))
            assert (await client.hear(events.Done, "a")).text == transcript(speech(1, seed))
            client.heard[1:] = []
        assert (connection.house.engine.statistics().deaths > 0) == (seconds == 3)
