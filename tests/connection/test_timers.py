"""The timers: a silent, an old and a draining connection. Every moment is exact in virtual time."""

from __future__ import annotations

import pytest
import trio

from tests.connection.client import SESSION
from tests.connection.fakes import SERVER_ID, connected, house
from tests.engine.scripted import Script, speech, transcript
from voxtral_actors.connection.supervisor import Kind, Outcome
from voxtral_actors.limits import OUTBOUND_EVENTS
from voxtral_actors.protocol import events
from voxtral_actors.protocol.closing import Close, farewell

LIVE = Script(step_s=0.08)


# --- Idle ----------------------------------------------------------------------------------------


async def test_p17_nobody_says_anything() -> None:
    async with connected(idle_timeout_s=10) as connection:
        outcome = await connection.ended()
        assert trio.current_time() == 10

    assert outcome == Outcome(Kind.NORMAL, "idle_timeout", Close.IDLE)
    assert connection.client.closed == (4000, "idle_timeout")
    assert connection.client.heard[-1] == events.SessionEnd(SERVER_ID, "connection", "idle_timeout")


async def test_client_messages_put_it_off() -> None:
    async with connected(idle_timeout_s=10) as connection:
        for _ in range(5):
            await trio.sleep(9)
            connection.client.frame("not even JSON")
        await connection.ended()
        assert trio.current_time() == 5 * 9 + 10


async def test_transcription_events_put_it_off() -> None:
    """A client may wait in silence for the text of what it said."""
    async with connected(Script(step_s=0.4), idle_timeout_s=10) as connection:
        connection.client.utter("a", speech(8))  # a hundred steps: 40 s
        await connection.client.hear(events.Done, "a")
        assert trio.current_time() == pytest.approx(40)
        await connection.ended()
        assert trio.current_time() == pytest.approx(50)


async def test_progress_without_text_does_not_put_it_off() -> None:
    """Nor does a forgotten utterance: it would hold its engine slot for ever."""
    async with connected(Script(step_s=1), idle_timeout_s=10) as connection:
        connection.client.start("a")
        connection.client.audio(bytes(32_000 * 2))  # 25 frames of silence
        await connection.ended()
        assert trio.current_time() == 10

    assert connection.client.the(events.Cancelled, "a").reason == "idle_timeout"


async def test_zero_turns_idle_and_duration_off() -> None:
    async with connected(idle_timeout_s=0, max_duration_s=0) as connection:
        await trio.sleep(86_400)
        connection.client.utter("a", speech(1))
        await connection.client.hear(events.Done, "a")


# --- Duration ------------------------------------------------------------------------------------


async def test_p17_an_old_connection_delivers_its_last_text_first() -> None:
    async with connected(LIVE, max_duration_s=60, close_grace_s=5) as connection:
        client = connection.client
        await trio.sleep(58)
        client.start("a")
        client.audio(speech(4))  # at 60 s there are two seconds to go
        await trio.sleep(2.5)
        client.audio(speech(1))  # not taken any more, and no error: it was on its way
        client.say("ping")
        outcome = await connection.ended()
        assert trio.current_time() == pytest.approx(62)

    assert outcome == Outcome(Kind.NORMAL, "max_duration", Close.MAX_DURATION)
    assert client.closed == (4003, "max_duration")
    assert client.the(events.Done, "a").text == transcript(speech(4))
    assert client.the(events.Pong) == events.Pong(SESSION, "r")
    assert client.slugs() == []


async def test_p11_at_the_end_of_the_grace_it_is_cancelled() -> None:
    async with connected(
        Script(hang_after=0), max_duration_s=60, close_grace_s=5, backpressure_timeout_s=0
    ) as connection:
        connection.client.utter("tail", speech(1))
        connection.client.start("active")
        connection.client.audio(speech(1))
        await connection.ended()
        assert trio.current_time() == 65

    for name in ("tail", "active"):
        assert connection.client.the(events.Cancelled, name).reason == "max_duration"
    assert connection.client.closed == (4003, "max_duration")


async def test_without_a_grace_it_is_closed_at_once() -> None:
    async with connected(Script(hang_after=0), max_duration_s=60, close_grace_s=0) as connection:
        connection.client.start("a")
        await connection.ended()
        assert trio.current_time() == 60

    assert connection.client.the(events.Cancelled, "a").reason == "max_duration"


async def test_no_utterance_starts_while_it_ends() -> None:
    async with connected(LIVE, max_duration_s=60, close_grace_s=5) as connection:
        client = connection.client
        await trio.sleep(59)
        client.start("a")
        client.audio(speech(4))
        await trio.sleep(2)
        client.start("b")
        await connection.ended()

    assert client.the(events.Error, "b").code == "shutting_down"
    assert client.the(events.Done, "a").text == transcript(speech(4))


# --- Drain ---------------------------------------------------------------------------------------

DRAINING = Outcome(Kind.SHUTDOWN, "shutting_down", Close.DRAINING)
LAST_ERROR = farewell(SESSION, "connection", Close.DRAINING)


async def test_p17_a_quiet_connection_is_told_to_go_elsewhere_at_once() -> None:
    async with connected() as connection:
        await trio.sleep(1)
        connection.house.drain.start(100)
        outcome = await connection.ended()
        assert trio.current_time() == 1

    assert outcome == DRAINING
    assert connection.client.heard[1:] == [farewell(SERVER_ID, "connection", Close.DRAINING)]
    assert connection.client.closed == (1012, "shutting_down")


async def test_p17_running_utterances_finish_and_no_new_one_starts() -> None:
    async with connected(LIVE, close_grace_s=5) as connection:
        client = connection.client
        client.start("a")
        client.audio(speech(1, 1))
        await trio.sleep(2)
        connection.house.drain.start(trio.current_time() + 100)
        await trio.sleep(10)
        client.audio(speech(1, 2), "a")
        client.finalise("a")
        client.start("b")
        assert await connection.ended() == DRAINING
        assert trio.current_time() == pytest.approx(13, abs=0.1)

    assert client.the(events.Done, "a").text == transcript(speech(1, 1) + speech(1, 2))
    refusal = client.the(events.Error, "b")
    assert (refusal.code, refusal.reason_code) == ("shutting_down", "draining")
    assert client.heard[-1] == LAST_ERROR


async def test_p17_before_the_deadline_the_active_utterance_is_finalised() -> None:
    async with connected(LIVE, close_grace_s=5) as connection:
        connection.client.start("a")
        connection.client.audio(speech(1))
        await trio.sleep(2)
        connection.house.drain.start(trio.current_time() + 20)
        await connection.ended()
        assert trio.current_time() == pytest.approx(2 + 15, abs=0.1)

    assert connection.client.the(events.Done, "a").text == transcript(speech(1))


async def test_p17_a_stuck_engine_does_not_move_the_deadline() -> None:
    async with connected(Script(hang_after=0), close_grace_s=5) as connection:
        connection.client.utter("a", speech(1))
        await trio.sleep(2)
        connection.house.drain.start(trio.current_time() + 20)
        assert await connection.ended() == DRAINING
        assert trio.current_time() == 22

    assert connection.client.the(events.Cancelled, "a").reason == "shutting_down"


async def test_a_connection_that_opens_while_the_server_drains() -> None:
    async with house() as here:
        here.drain.start(100)
        async with here.connect() as connection:
            assert await connection.ended() == DRAINING


async def test_the_first_deadline_of_a_drain_stands() -> None:
    async with connected(Script(hang_after=0), close_grace_s=5) as connection:
        connection.client.start("a")
        await trio.sleep(1)
        connection.house.drain.start(20)
        connection.house.drain.start(10)
        assert connection.house.drain.deadline == 20
        await connection.ended()
        assert trio.current_time() == 20


async def test_p11_what_belongs_together_is_said_together() -> None:
    """A start that supersedes and then fails makes two events, an idle connection two more, and
    all wait for a client that does not read: those of the start come first, both of them."""
    streams = [Script(), Script(open_raises=True)]
    async with connected(
        streams=streams, idle_timeout_s=20, write_deadline_s=60, replay_budget_s=0
    ) as connection:
        client = connection.client
        await client.hear(events.SessionCreated)
        client.start("a")
        client.stop_reading()
        for _ in range(OUTBOUND_EVENTS + 1):  # the writer holds one of the pongs
            client.say("ping")
        client.start("b")
        await trio.sleep(30)
        client.read_again()
        await connection.ended()

    assert client.heard[-3:-1] == [
        events.Cancelled(SESSION, "a", "superseded"),
        client.the(events.Error, "b"),
    ]
    assert client.heard[-1] == events.SessionEnd(SESSION, "connection", "idle_timeout")
