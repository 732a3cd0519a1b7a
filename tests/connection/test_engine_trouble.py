"""Engines that die, refuse and fail: one error to the utterance, and the connection lives on.

So it is without replay, for a budget of 0; `test_replay.py` is about utterances that get over it.
"""

from __future__ import annotations

import pytest
import trio

from tests.connection.fakes import connected, house
from tests.engine.scripted import FRAME, NEVER, Script, speech, transcript
from voxtral_actors.limits import ENGINE_RELEASE_S
from voxtral_actors.protocol import events


async def test_p11_an_engine_that_dies_ends_each_utterance_once() -> None:
    async with connected(Script(step_s=0.08, slots=3), replay_budget_s=0) as connection:
        client = connection.client
        client.utter("tail", speech(2, 1))
        client.start("active")
        client.audio(speech(1, 2))
        await trio.sleep(0.5)
        connection.house.scripted.kill()
        await client.hear(events.Error, "active")
        client.audio(speech(1, 3))
        client.finalise("active")
        await trio.sleep(1)
        client.utter("next", speech(1, 4))
        done = await client.hear(events.Done, "next")

    for name in ("tail", "active"):
        error = client.the(events.Error, name)
        assert (error.code, error.reason_code) == ("engine_unavailable", "engine_lost")
        assert error.details == {"retry": True}
        assert client.events(name)[-1] == error
    assert done.text == transcript(speech(1, 4))
    assert len(client.slugs()) == 2, "the audio that was on its way is no further error"


async def test_p11_an_utterance_while_the_engine_restarts() -> None:
    async with connected(replay_budget_s=0) as connection:
        client = connection.client
        connection.house.scripted.kill()
        await trio.sleep(0.1)
        client.utter("early", speech(1))
        error = await client.hear(events.Error, "early")
        await trio.sleep(1)
        client.utter("late", speech(1))
        await client.hear(events.Done, "late")

    assert (error.code, error.reason_code) == ("engine_unavailable", "engine_not_ready")
    assert client.slugs() == ["engine_not_ready"]


async def test_p11_a_failed_stream_is_that_stream_s_end_only() -> None:
    async with connected(streams=[Script(fail_after=3 * FRAME)], replay_budget_s=0) as connection:
        client = connection.client
        client.utter("a", speech(1))
        client.utter("b", speech(1))
        await client.hear(events.Done, "b")

        assert client.the(events.Error, "a").reason_code == "scripted"
        assert connection.house.engine.statistics().deaths == 0


async def test_p11_an_engine_that_cannot_open_the_stream() -> None:
    async with connected(streams=[Script(open_raises=True)], replay_budget_s=0) as connection:
        connection.client.utter("a", speech(1))
        connection.client.utter("b", speech(1))
        await connection.client.hear(events.Done, "b")

    assert connection.client.the(events.Error, "a").code == "engine_unavailable"


async def test_p11_garbage_from_the_engine_is_not_passed_on() -> None:
    async with connected(Script(garbage=True, step_s=0.01)) as connection:
        for seed in range(3):
            connection.client.utter("a", speech(1, seed))
            await trio.sleep(1)
            done = connection.client.heard[-1]

            assert isinstance(done, events.Done)
            assert done.text == transcript(speech(1, seed))


async def test_p5_a_full_engine_refuses_the_utterance_and_its_audio_quietly() -> None:
    async with house(Script(slots=1)) as here, here.connect() as one, here.connect() as two:
        one.client.start("a")
        await trio.sleep(1)
        two.client.utter("b", speech(1))
        error = await two.client.hear(events.Error, "b")
        two.client.audio(speech(1), "b")
        two.client.say("ping")
        await two.client.hear(events.Pong)
        one.client.cancel("a")
        await one.client.hear(events.Cancelled, "a")
        two.client.utter("b", speech(1, 2))

        assert (await two.client.hear(events.Done, "b")).text == transcript(speech(1, 2))
        assert (error.code, error.reason_code) == ("server_at_capacity", "no_engine_slot")
        assert two.client.slugs() == ["no_engine_slot"]
        assert here.engine.statistics().streams_refused == 1


async def test_p12_barge_in_on_a_full_engine_finds_the_slot_that_it_frees() -> None:
    """A stream that is over holds its slot for a moment more; the next one need not wait for it."""
    async with connected(Script(slots=1, release_after_s=0.1)) as connection:
        client = connection.client
        client.start("a")
        client.start("b")
        await client.hear(events.Cancelled, "a")
        client.start("c")  # two streams are held now, for one slot: that is the end of it
        await client.hear(events.Error, "c")
        await trio.sleep(0.1)
        client.utter("d", speech(1))
        await client.hear(events.Done, "d")

    assert client.the(events.Cancelled, "a").reason == "superseded"
    assert client.the(events.Cancelled, "b").reason == "superseded"
    assert client.slugs() == ["no_engine_slot"]


async def test_p5_an_engine_that_keeps_a_stream_is_restarted() -> None:
    async with connected(
        Script(slots=2, step_s=0.08),
        [Script(never_release=True)],
        idle_timeout_s=0,
        replay_budget_s=0,
    ) as connection:
        client = connection.client
        client.start("a")
        client.cancel("a")
        await client.hear(events.Cancelled, "a")
        await trio.sleep(ENGINE_RELEASE_S - 1)
        client.start("b")
        assert (await client.hear(events.Error, "b")).reason_code == "engine_lost"
        assert trio.current_time() == pytest.approx(ENGINE_RELEASE_S)
        await trio.sleep(1)
        client.utter("c", speech(1))
        await client.hear(events.Done, "c")


@pytest.mark.parametrize("seconds", [NEVER, 3])
async def test_p11_an_engine_that_dies_again_and_again(seconds: float) -> None:
    """Whatever happens to it, each utterance has its one last event."""
    async with connected(
        Script(step_s=0.08, die_at_s=seconds),
        idle_timeout_s=0,
        max_messages_per_window=0,
        replay_budget_s=0,
    ) as connection:
        client = connection.client
        for seed in range(40):
            client.utter("a", speech(1, seed))
            await trio.sleep(1.5)
        await trio.sleep(60)

        assert client.alive["a"] == 0
        ends = [e for e in client.heard if isinstance(e, events.Done | events.Error)]
        assert len(ends) == 40
        assert any(isinstance(end, events.Done) for end in ends)
        assert any(isinstance(end, events.Error) for end in ends) == (seconds == 3)
