"""What a client may send: how often, how wrong and how large."""

from __future__ import annotations

import trio

from tests.connection.client import SESSION
from tests.connection.fakes import connected, house
from tests.engine.scripted import speech, transcript
from voxtral_actors.connection.supervisor import Kind, Outcome
from voxtral_actors.protocol import events
from voxtral_actors.protocol.closing import Close, farewell

SAMPLE_BYTES = 2
FREE = bytes(320 * SAMPLE_BYTES)
"""20 ms of audio: the smallest piece that does not count."""


# --- Windows -------------------------------------------------------------------------------------


async def test_the_message_window_and_when_it_opens_again() -> None:
    async with connected(max_messages_per_window=3, message_window_s=10) as connection:
        client = connection.client
        for second in range(3):
            client.say("session.update", f"u{second}")
            await trio.sleep(1)
        await trio.sleep(0.25)
        client.say("session.update", "refused")  # at 3.25 s; the first of three was at 0 s
        error = await client.hear(events.Error)
        await trio.sleep(6.75)
        client.say("session.update", "taken")
        client.say("session.update", "refused again")
        await client.hear(events.Error, "refused again")

    assert (error.code, error.reason_code) == ("rate_limited", "message_rate_limited")
    assert error.details == {
        "retry_in": 6.75, "limit": 3, "window_seconds": 10, "kind": "message",
    }  # fmt: skip
    updated = [e.request_id for e in client.heard if isinstance(e, events.SessionUpdated)]
    assert updated == ["u0", "u1", "u2", "taken"]


async def test_the_cancel_window_is_one_of_its_own() -> None:
    async with connected(
        max_cancels_per_window=2, cancel_window_s=10, max_messages_per_window=1
    ) as connection:
        client = connection.client
        client.start("a")
        for _ in range(3):
            client.cancel("a")
        error = await client.hear(events.Error)
        await trio.sleep(10)
        client.cancel("b")
        await client.hear(events.Cancelled, "b")

    assert error.reason_code == "cancel_rate_limited"
    assert error.details == {
        "retry_in": 10, "limit": 2, "window_seconds": 10, "kind": "cancel",
    }  # fmt: skip
    assert [e.reason for e in client.events("a") if isinstance(e, events.Cancelled)] == [
        "client_request",
        "no_active_request",
    ]


async def test_ping_end_and_audio_of_20_ms_are_free() -> None:
    async with connected(max_messages_per_window=3) as connection:
        client = connection.client
        client.start("a")
        for _ in range(50):
            client.audio(FREE)
            client.audio(FREE, "a")
            client.say("ping")
        client.audio(FREE[2:])  # a sample too little: the second message of the window
        client.finalise("a")
        await client.hear(events.Done, "a")
        client.start("b")
        client.alive["b"] -= 1
        await client.hear(events.Error, "b")
        client.say("end")
        await connection.ended()

    assert client.the(events.Done, "a").usage.audio_seconds == 100 * 0.02 + 319 / 16_000
    assert client.slugs() == ["message_rate_limited"]
    assert client.closed == (1000, "end")


async def test_the_audio_of_a_start_over_the_limit_earns_no_error_of_its_own() -> None:
    async with connected(max_messages_per_window=1) as connection:
        client = connection.client
        client.say("session.update")
        client.start("a")
        client.alive["a"] -= 1
        for _ in range(10):
            client.audio(FREE)
            client.audio(FREE, "a")
        client.say("ping")
        await client.hear(events.Pong)

    assert client.slugs() == ["message_rate_limited"]


async def test_zero_turns_the_windows_off() -> None:
    async with connected(max_messages_per_window=0, max_cancels_per_window=0) as connection:
        for _ in range(300):
            connection.client.say("session.update")
            connection.client.cancel("a")
        connection.client.say("ping")
        await connection.client.hear(events.Pong)

    assert connection.client.slugs() == []


# --- Bad messages --------------------------------------------------------------------------------

BAD_FRAMES: list[tuple[str | bytes, str, str]] = [
    ("", "invalid_message", "invalid_json"),
    ("[]", "invalid_message", "not_an_object"),
    ('{"type": "ping"}', "invalid_message", "invalid_envelope"),
    (b"", "invalid_payload", "invalid_audio"),
    (b"odd", "invalid_payload", "invalid_audio"),
]


async def test_p9_an_error_about_a_message_leaves_the_utterance_alone() -> None:
    async with connected() as connection:
        client = connection.client
        client.start("a")
        client.audio(speech(1, 1))
        for frame, _, _ in BAD_FRAMES:
            client.frame(frame)
        client.say("no.such.type", "x")
        client.say("input_audio_buffer.append", "a", audio="?")
        client.say("input_audio_buffer.append", "other", audio="AAA=")
        client.finalise("other")
        client.start("a")
        client.audio(speech(1, 2))
        client.finalise("a")
        done = await client.hear(events.Done, "a")
        client.audio(FREE)
        client.say("ping")
        await client.hear(events.Pong)

    assert done.text == transcript(speech(1, 1) + speech(1, 2))
    assert client.slugs() == [
        *(slug for _, _, slug in BAD_FRAMES), "unknown_type", "invalid_audio",
        "request_id_mismatch", "request_id_mismatch", "request_id_in_use", "no_active_request",
    ]  # fmt: skip
    codes = [event.code for event in client.heard if isinstance(event, events.Error)]
    assert codes[: len(BAD_FRAMES)] == [code for _, code, _ in BAD_FRAMES]


async def test_p9_too_many_bad_messages() -> None:
    async with connected(max_bad_messages=5) as connection:
        client = connection.client
        client.start("a")
        for _ in range(9):
            client.frame("bad")
        outcome = await connection.ended()

    assert outcome == Outcome(Kind.CLIENT_FAULT, "too_many_bad_messages", Close.TOO_MANY_BAD)
    assert client.closed == (4009, "too_many_bad_messages")
    assert client.slugs() == ["invalid_json"] * 5 + ["too_many_bad_messages"]
    assert client.the(events.Cancelled, "a").reason == "too_many_bad_messages"
    assert client.heard[-1] == farewell(SESSION, "connection", Close.TOO_MANY_BAD)


async def test_p9_zero_turns_the_count_off() -> None:
    async with connected(max_bad_messages=0, max_messages_per_window=0) as connection:
        for _ in range(500):
            connection.client.frame("bad")
        connection.client.say("ping")
        await connection.client.hear(events.Pong)


async def test_p9_a_message_over_the_limit() -> None:
    async with house() as here, here.connect(max_message_bytes=1024) as connection:
        client = connection.client
        client.start("a")
        client.audio(bytes(1024))
        client.say("ping")
        await client.hear(events.Pong)
        client.audio(bytes(1026))
        outcome = await connection.ended()

        assert outcome == Outcome(Kind.CLIENT_FAULT, "message_too_big", Close.TOO_BIG)
        assert client.closed == (1009, "message_too_big")
        assert client.the(events.Cancelled, "a").reason == "message_too_big"
        assert here.streams[0].fed == 1024
