"""What a client and the server say to each other while nothing goes wrong."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from tests.connection.client import SESSION
from tests.connection.fakes import SERVER_ID, connected, house
from tests.engine.scripted import FRAME, FRAME_BYTES, Script, speech, transcript
from voxtral_actors.connection.supervisor import Kind, Outcome
from voxtral_actors.limits import MAX_TAILS
from voxtral_actors.protocol import events
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.events import CONNECTION_REQUEST_ID

LIVE = Script(step_s=0.08)
"""An engine as fast as speech."""


async def test_the_first_event_says_who_serves_and_what_the_limits_are() -> None:
    async with connected(idle_timeout_s=7) as connection:
        created = await connection.client.hear(events.SessionCreated)

    assert (created.session_id, created.request_id) == (SERVER_ID, CONNECTION_REQUEST_ID)
    assert (created.id, created.created) == (SERVER_ID, 1_700_000_000)
    assert (created.engine, created.model) == ("scripted", "tiny")
    assert (created.sample_rate, created.transcription_delay_ms) == (16_000, 80)
    assert created.note == "Not a recogniser."
    assert created.limits["idle_timeout_s"] == 7
    assert connection.client.heard == [created]


async def test_an_utterance() -> None:
    pcm = speech(3.01)
    async with connected(LIVE) as connection:
        client = connection.client
        client.utter("a", pcm)
        done = await client.hear(events.Done, "a")

    deltas = [event for event in client.heard if isinstance(event, events.Delta)]
    assert done.text == transcript(pcm)
    assert done.text == "".join(delta.delta for delta in deltas)
    assert done.usage == events.Usage(0, 0, 0, 3.01)
    assert done.session_id == SESSION
    positions = [delta.audio_ms for delta in deltas]
    assert positions == sorted(positions)
    assert positions[-1] <= 3010
    assert await connection.ended() == Outcome(Kind.NORMAL, "client_left")


async def test_appends_and_binary_frames_are_the_same_audio() -> None:
    pcm = speech(1)
    async with connected() as connection:
        client = connection.client
        client.start("a")
        client.audio(pcm[:100])
        client.audio(pcm[100:9000], "a")
        client.audio(pcm[9000:])
        client.finalise("a")

        assert (await client.hear(events.Done, "a")).text == transcript(pcm)


async def test_an_utterance_without_audio_is_done_at_once() -> None:
    async with connected() as connection:
        connection.client.utter("a", b"")
        done = await connection.client.hear(events.Done, "a")

    assert (done.text, done.usage.audio_seconds) == ("", 0)


async def test_a_hundred_utterances_under_one_request_id() -> None:
    async with connected(Script(slots=1), max_messages_per_window=0) as connection:
        client = connection.client
        for seed in range(100):
            client.utter("same", speech(0.4, seed))
            await trio.sleep(1)
        texts = [event.text for event in client.heard if isinstance(event, events.Done)]

        assert texts == [transcript(speech(0.4, seed)) for seed in range(100)]
        assert connection.house.scripted.released == 100


async def test_a_tail_is_delivered_while_the_next_utterance_runs() -> None:
    async with connected(LIVE) as connection:
        client = connection.client
        client.utter("a", speech(2, 1))
        client.start("b")
        client.audio(speech(1, 2))
        await client.hear(events.Done, "a")
        assert client.events("b"), "both are heard at the same time"
        client.audio(speech(1, 3))
        client.finalise("b")
        await client.hear(events.Done, "b")

    assert client.the(events.Done, "a").text == transcript(speech(2, 1))
    assert client.the(events.Done, "b").text == transcript(speech(1, 2) + speech(1, 3))


async def test_as_many_tails_as_allowed_and_one_more() -> None:
    async with connected(Script(step_s=0.08, slots=MAX_TAILS + 1)) as connection:
        client = connection.client
        for number in range(MAX_TAILS + 1):
            client.utter(f"u{number}", speech(1, number))
        await trio.sleep(2)
        client.utter("again", speech(1))
        await client.hear(events.Done, "again")

        assert client.slugs() == ["too_many_finalising"]
        assert client.the(events.Error, f"u{MAX_TAILS}").code == "server_at_capacity"
        for number in range(MAX_TAILS):
            assert client.the(events.Done, f"u{number}").text == transcript(speech(1, number))


async def test_p12_a_start_supersedes_the_active_utterance() -> None:
    async with connected(LIVE) as connection:
        client = connection.client
        client.start("a")
        client.audio(speech(2, 1))
        await client.hear(events.Delta, "a")
        client.utter("b", speech(1, 2))
        done = await client.hear(events.Done, "b")

        assert client.the(events.Cancelled, "a").reason == "superseded"
        assert done.text == transcript(speech(1, 2))
        assert connection.house.streams[0].aborted
        assert connection.house.streams[0].consumed < 2 * 16_000


async def test_p12_cancel_of_the_active_utterance() -> None:
    async with connected(LIVE) as connection:
        client = connection.client
        client.start("a")
        client.audio(speech(2))
        await trio.sleep(0.4)
        client.cancel("a", reason="changed my mind")
        said = trio.current_time()
        cancelled = await client.hear(events.Cancelled, "a")

        assert trio.current_time() == said, "no engine step is waited for"
        assert cancelled.reason == "changed my mind"
        assert connection.house.streams[0].aborted
        await wait_all_tasks_blocked()
        assert connection.house.engine.statistics().slots_taken == 0
        client.utter("b", speech(1, 2))
        assert (await client.hear(events.Done, "b")).text == transcript(speech(1, 2))
        assert client.events("a")[-1] == cancelled


async def test_p12_cancel_of_a_tail_spares_the_active_utterance() -> None:
    async with connected(LIVE) as connection:
        client = connection.client
        client.utter("a", speech(2, 1))
        client.start("b")
        client.audio(speech(1, 2))
        client.cancel("a")
        assert (await client.hear(events.Cancelled, "a")).reason == "client_request"
        client.finalise("b")
        await client.hear(events.Done, "b")

    assert client.the(events.Done, "b").text == transcript(speech(1, 2))


async def test_p12_cancel_of_nothing() -> None:
    async with connected() as connection:
        connection.client.cancel("a")
        assert (await connection.client.hear(events.Cancelled)).reason == "no_active_request"


async def test_p12_the_aborted_stream_may_say_what_it_likes() -> None:
    """Text and a last event that come after the abort are nobody's."""
    async with connected(Script(step_s=0.08, late=True, release_after_s=1)) as connection:
        client = connection.client
        client.start("a")
        client.audio(speech(1, 1))
        await trio.sleep(0.2)
        client.cancel("a")
        client.utter("a", speech(1, 2))
        assert (await client.hear(events.Done, "a")).text == transcript(speech(1, 2))

        assert connection.house.engine.statistics().events_dropped > 0


async def test_end_cancels_what_runs_and_closes_in_good_order() -> None:
    async with connected(LIVE) as connection:
        client = connection.client
        client.utter("a", speech(2, 1))
        client.start("b")
        client.audio(speech(1, 2))
        client.say("end", "bye")
        client.say("ping")
        client.start("c")
        client.alive["c"] -= 1  # said after `end`, to nobody
        outcome = await connection.ended()

    assert outcome == Outcome(Kind.NORMAL, "end", Close.NORMAL)
    assert client.closed == (1000, "end")
    assert client.heard[1:] == [
        events.Cancelled(SESSION, "a", "end"),
        events.Cancelled(SESSION, "b", "end"),
        events.SessionEnd(SESSION, "bye", "end"),
    ]


async def test_ping_has_its_ids_back_and_ends_nothing() -> None:
    async with connected(LIVE) as connection:
        client = connection.client
        client.start("a")
        client.say("ping", "p1", anything=[1, 2])
        await client.hear(events.Pong)
        client.audio(speech(1))
        client.finalise("a")
        await client.hear(events.Done, "a")

    assert client.the(events.Pong) == events.Pong(SESSION, "p1")


async def test_session_update() -> None:
    async with connected() as connection:
        client = connection.client
        client.say("session.update", "u1", model="tiny")
        client.say("session.update", "u2")
        client.say("session.update", "u3", model="large")
        error = await client.hear(events.Error)

    assert client.heard[1:3] == [
        events.SessionUpdated(SESSION, "u1", "tiny"),
        events.SessionUpdated(SESSION, "u2", "tiny"),
    ]
    assert (error.code, error.reason_code) == ("invalid_payload", "unsupported_model")
    assert (error.request_id, error.details["allowed"]) == ("u3", ["tiny"])


async def test_audio_ms_counts_the_audio_that_the_engine_used() -> None:
    async with connected(LIVE) as connection:
        client = connection.client
        client.start("a")
        client.audio(speech(1)[: 5 * FRAME_BYTES])
        await trio.sleep(1)
        heard = [event.audio_ms for event in client.heard if isinstance(event, events.Delta)]

    assert heard
    assert all(ms % (FRAME // 16) == 0 and 0 < ms <= 400 for ms in heard)


async def test_connections_do_not_hear_each_other() -> None:
    async with house(LIVE) as here, here.connect() as one, here.connect() as two:
        one.client.utter("a", speech(1, 1))
        two.client.utter("a", speech(1, 2))
        assert (await one.client.hear(events.Done, "a")).text == transcript(speech(1, 1))
        assert (await two.client.hear(events.Done, "a")).text == transcript(speech(1, 2))
