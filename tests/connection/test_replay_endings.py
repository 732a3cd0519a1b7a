"""What an utterance that lost its engine can end in: the budget, its audio, the client's wishes.

Whatever it is, there is one last event, and no task and no slot is left; `house` sees to that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.connection.endings import cancel, end, leave
from tests.connection.fakes import Connection, connected
from tests.connection.test_replay import AWAY, LIVE, speak
from tests.engine.scripted import FRAME, Script, speech, transcript
from voxtral_actors.connection.losses import MAX_LOSSES_AT_A_PLACE
from voxtral_actors.limits import ENGINE_RESTART_FIRST_S, SAMPLE_RATE
from voxtral_actors.protocol import events


def said(connection: Connection) -> str:
    deltas = [e.delta for e in connection.client.events("a") if isinstance(e, events.Delta)]
    return "".join(deltas)


async def test_p15_replay_budget_runs_out() -> None:
    """One error, for whom it is worth to come back, and it says from where on audio is missing."""
    pcm = speech(4)
    async with connected(AWAY, replay_budget_s=5) as connection:
        start = trio.current_time()
        client = connection.client
        client.start("a")
        client.audio(pcm)
        await trio.sleep(1)
        connection.house.scripted.kill()
        error = await client.hear(events.Error, "a")
        assert trio.current_time() - start == pytest.approx(1 + 5)
        await trio.sleep(60)

    assert (error.code, error.reason_code) == ("engine_unavailable", "engine_lost")
    transcribed = error.details.pop("transcribed_s")
    assert error.details == {"retry": True, "waited_s": pytest.approx(5)}
    assert isinstance(transcribed, float)
    assert 1.8 < transcribed < 2.1
    assert said(connection) == transcript(pcm[: round(transcribed * SAMPLE_RATE) * 2])
    assert client.events("a")[-1] == error
    assert connection.house.figures.given_up == {"budget": 1}


async def test_p11_a_stream_that_ends_too_early_is_an_error_where_nothing_is_replayed() -> None:
    async with connected(LIVE, replay_budget_s=0) as connection:
        connection.client.start("a")
        connection.client.audio(speech(2))
        await trio.sleep(0.5)
        connection.house.streams[0].finished = True  # nobody has told it to
        with trio.fail_after(3):
            error = await connection.client.hear(events.Error, "a")

    assert (error.code, error.reason_code) == ("engine_unavailable", "engine_stream_lost")


@pytest.mark.parametrize("late", [-0.001, 0, 0.001])
async def test_p11_the_budget_runs_out_as_the_engine_is_ready(late: float) -> None:
    script = Script(step_s=0.04, start_s=4)
    budget = 4 + ENGINE_RESTART_FIRST_S + late
    async with connected(script, replay_budget_s=budget) as connection:
        connection.client.utter("a", speech(4))
        await trio.sleep(1)
        connection.house.scripted.kill()
        await trio.sleep(30)
        last = connection.client.events("a")[-1]

    assert isinstance(last, events.Error if late < 0 else events.Done | events.Error)
    assert connection.client.alive["a"] == 0


async def test_p11_audio_that_kills_every_engine_is_given_up() -> None:
    streams = [Script(step_s=0.04, die_after=30 * FRAME)] * MAX_LOSSES_AT_A_PLACE
    async with connected(LIVE, streams, replay_budget_s=600) as connection:
        client = connection.client
        client.utter("a", speech(4))
        error = await client.hear(events.Error, "a")
        assert len(connection.house.streams) == MAX_LOSSES_AT_A_PLACE
        await trio.sleep(60)
        client.utter("b", speech(4))
        await client.hear(events.Done, "b")

    assert (error.code, error.reason_code) == ("engine_unavailable", "audio_unhearable")
    assert error.details["retry"] is False


async def test_p12_cancel_is_heard_at_once_while_the_engine_is_away() -> None:
    async with connected(AWAY, max_audio_backlog_s=2) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(speak, connection, speech(15))
        await trio.sleep(1)
        connection.house.scripted.kill()
        await trio.sleep(10)
        cancelled_at = trio.current_time()
        connection.client.cancel("a")
        await connection.client.hear(events.Cancelled, "a")
        assert trio.current_time() - cancelled_at < 0.2
        nursery.cancel_scope.cancel()


async def barge_in(connection: Connection) -> None:
    connection.client.utter("b", speech(1, 2))
    await connection.client.hear(events.Cancelled, "a")
    assert (await connection.client.hear(events.Done, "b")).text == transcript(speech(1, 2))


async def drain(connection: Connection) -> None:
    connection.house.drain.start(trio.current_time() + 6)
    await connection.ended()
    connection.client.the(events.Cancelled, "a")


async def long_drain(connection: Connection) -> None:
    """Long enough for the engine to come back: the utterance is wound down whole."""
    connection.house.drain.start(trio.current_time() + 40)
    await connection.ended()
    assert connection.client.the(events.Done, "a").text == transcript(speech(2))


async def finish(connection: Connection) -> None:
    connection.client.finalise("a")
    assert (await connection.client.hear(events.Done, "a")).text == transcript(speech(2))


LEAVINGS: list[Callable[[Connection], Awaitable[None]]] = [
    cancel, barge_in, leave, end, drain, long_drain, finish,
]  # fmt: skip


@pytest.mark.parametrize("go_on", LEAVINGS)
async def test_p11_p5_an_utterance_that_waits_for_the_engine_can_end_in_any_way(
    go_on: Callable[[Connection], Awaitable[None]],
) -> None:
    """No task and no slot of it is left; `house` sees to that."""
    async with connected(AWAY, close_grace_s=1) as connection:
        client = connection.client
        client.start("a")
        client.audio(speech(2))
        await client.hear(events.Delta, "a")
        connection.house.scripted.kill()
        await trio.sleep(1)
        await go_on(connection)
        if client.closed is None and go_on is not leave:
            tree_tasks = connection.house.engine.statistics().slots_taken
            assert tree_tasks == 0
