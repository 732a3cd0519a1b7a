"""Clients that read slowly, or not at all."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.connection.fakes import connected, house
from tests.engine.scripted import Script, speech, transcript
from voxtral_actors.connection.supervisor import Kind, Outcome
from voxtral_actors.limits import INBOUND_MESSAGES, LAST_WORDS_S, OUTBOUND_EVENTS
from voxtral_actors.protocol import events
from voxtral_actors.protocol.closing import Close

SLOW = Outcome(Kind.CLIENT_FAULT, "slow_consumer", Close.SLOW_CONSUMER)


async def test_p3_a_client_that_stops_reading_is_closed_at_the_write_deadline() -> None:
    async with house(Script(step_s=0.08)) as here, here.connect(write_deadline_s=10) as other:
        async with here.connect(write_deadline_s=10) as connection:
            client = connection.client
            client.utter("a", speech(60))
            other.client.utter("a", speech(1))
            await client.hear(events.Delta, "a")
            client.stop_reading()
            stopped = trio.current_time()
            outcome = await connection.ended()
            assert trio.current_time() <= stopped + 10 + LAST_WORDS_S + 0.4

            assert outcome == SLOW
            assert connection.transport.closes == [(4008, "slow_consumer")]
            assert here.streams[0].aborted
        assert (await other.client.hear(events.Done, "a")).text == transcript(speech(1))


async def test_p3_a_client_that_reads_again_in_time_gets_everything_in_fewer_pieces() -> None:
    pcm = speech(20)
    async with connected(Script(step_s=0.01), write_deadline_s=10) as connection:
        client = connection.client
        client.utter("a", pcm)
        await client.hear(events.Delta, "a")
        client.stop_reading()
        await trio.sleep(9)
        client.read_again()
        done = await client.hear(events.Done, "a")

    deltas = [event for event in client.heard if isinstance(event, events.Delta)]
    assert done.text == transcript(pcm)
    # One word a piece while it read, then the queue, the two in hand, and all the rest in one.
    assert len(deltas) <= OUTBOUND_EVENTS + 4
    assert max(len(delta.delta) for delta in deltas) > len(done.text) / 2


async def test_p3_what_a_client_says_without_listening_stays_in_its_socket() -> None:
    """Answers that nobody takes stop the reader, so memory is bounded by the queues."""
    async with connected(write_deadline_s=10) as connection:
        await connection.client.hear(events.SessionCreated)
        connection.client.stop_reading()
        for _ in range(1000):
            connection.client.say("ping")
        await wait_all_tasks_blocked()
        taken = 1000 - len(connection.transport.unread)
        assert taken <= OUTBOUND_EVENTS + 2 * INBOUND_MESSAGES + 4
        assert await connection.ended() == SLOW
        assert trio.current_time() == 10 + LAST_WORDS_S


async def test_p3_slow_is_not_stuck() -> None:
    """The deadline is for one message, however many there are."""
    async with connected(idle_timeout_s=0, write_deadline_s=10) as connection:
        client = connection.client
        client.read_slowly(9)
        for number in range(100):
            client.say("ping", f"p{number}")
        await trio.sleep(9 * 102)
        pongs = [e.request_id for e in client.heard if isinstance(e, events.Pong)]

        assert pongs == [f"p{number}" for number in range(100)]


async def test_p3_the_text_of_a_slow_client_does_not_count_against_the_engine() -> None:
    """The engine is not stalled because its text is not fetched."""
    async with connected(
        Script(step_s=0.08), write_deadline_s=100, backpressure_timeout_s=5
    ) as connection:
        client = connection.client
        client.utter("a", speech(20))
        await client.hear(events.Delta, "a")
        client.stop_reading()
        await trio.sleep(60)
        client.read_again()
        assert (await client.hear(events.Done, "a")).text == transcript(speech(20))


@pytest.mark.parametrize("close", [Close.IDLE, Close.MAX_DURATION, Close.DRAINING])
async def test_p3_no_timer_waits_for_a_client_that_does_not_read(close: Close) -> None:
    async with connected(
        write_deadline_s=10,
        idle_timeout_s=60 if close is Close.IDLE else 0,
        max_duration_s=60 if close is Close.MAX_DURATION else 0,
    ) as connection:
        await connection.client.hear(events.SessionCreated)
        connection.client.stop_reading()
        await trio.sleep(60)
        if close is Close.DRAINING:
            connection.house.drain.start(200)
        outcome = await connection.ended()
        # The farewell is not taken either, and so its deadline decides.
        assert outcome == SLOW
        assert trio.current_time() == 60 + 10 + LAST_WORDS_S
