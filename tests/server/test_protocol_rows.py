"""The wire, row by row, over real sockets: every message of the client and what comes of it."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
import trio

from tests.engine.scripted import FRAME, Script, speech, transcript
from tests.server.harness import SESSION, Client, envelope, serving
from tests.server.wire_helpers import TEXT, frame
from voxtral_actors.limits import MAX_TAILS
from voxtral_actors.protocol.events import (
    Cancelled,
    Delta,
    Done,
    Error,
    Pong,
    SessionEnd,
    SessionUpdated,
)

CHUNK = 2560
START = envelope("input_audio_buffer.commit")
PCM = speech(1.0, seed=1)


def base64(pcm: bytes) -> str:
    return b64encode(pcm).decode()


async def speak(client: Client, pcm: bytes, request_id: str = "r1", *, binary: bool = True) -> None:
    """A whole utterance in chunks of 80 ms."""
    await client.start(request_id)
    for start in range(0, len(pcm), CHUNK):
        chunk = pcm[start : start + CHUNK]
        if binary:
            await client.send(chunk)
        else:
            await client.say("input_audio_buffer.append", request_id, audio=base64(chunk))
    await client.finish(request_id)


# --- ping, end, cancel, session.update -----------------------------------------------------------


@pytest.mark.parametrize("payload", [{}, {"n": 1}, {"deep": [{"a": None}], "type": "end"}])
async def test_ping_is_answered_with_its_ids(payload: dict[str, Any]) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            await client.say("ping", "p7", **payload)
            assert await client.next() == Pong(SESSION, "p7")


async def test_a_payload_may_be_left_out() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            for what in ("ping", "cancel", "session.update", "input_audio_buffer.commit"):
                await client.send(envelope(what))
            await client.hear(Pong)
            await client.hear(Cancelled)
            await client.hear(SessionUpdated)
            await client.alive()
            await client.send(envelope("end", "bye"))
            await client.hear(Cancelled)
            assert await client.next() == SessionEnd(SESSION, "bye", "end")
            assert await client.closed() == (1000, "end")


async def test_end_cancels_what_is_active_and_closes_1000() -> None:
    with trio.fail_after(10):
        async with serving(Script(hang_after=0)) as server, server.session() as client:
            await client.start("tail")
            await client.finish("tail")
            await client.start("active")
            await client.say("end", "bye")
            assert await client.next() == Cancelled(SESSION, "tail", "end")
            assert await client.next() == Cancelled(SESSION, "active", "end")
            assert await client.next() == SessionEnd(SESSION, "bye", "end")
            assert await client.closed() == (1000, "end")


async def test_what_comes_with_end_is_ignored() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            frames = [envelope("end", "bye"), envelope("ping"), START]
            whole = b"".join(frame(TEXT, text.encode()) for text in frames)
            await client.raw.send(whole)  # in one packet
            await client.hear(SessionEnd)
            assert await client.closed() == (1000, "end")
            assert server.engine.statistics().streams_opened == 0


@pytest.mark.parametrize(
    ("payload", "reason"),
    [({}, "client_request"), ({"reason": None}, "client_request"), ({"reason": "Ж"}, "Ж")],
    ids=["no reason", "null", "a reason"],
)
async def test_p12_cancel_ends_the_active_utterance(payload: dict[str, Any], reason: str) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            await client.start("u")
            await client.say("cancel", "u", **payload)
            assert await client.next() == Cancelled(SESSION, "u", reason)
            await client.send(PCM)  # it was on its way; no utterance is named, none is active
            await client.refused("invalid_payload", "no_active_request")
            await speak(client, PCM, "next")
            text, done = await client.transcript("next")
            assert isinstance(done, Done)
            assert text == done.text == transcript(PCM)


async def test_cancel_is_answered_even_if_nothing_is_active() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            await client.say("cancel", "u", reason="why not")
            assert await client.next() == Cancelled(SESSION, "u", "no_active_request")
            await client.alive()


async def test_p12_a_cancelled_utterance_is_never_heard_of_again() -> None:
    script = Script(step_s=0.005, late=True, garbage=True)
    with trio.fail_after(10):
        async with serving(script) as server, server.session() as client:
            await client.start("u")
            await client.send(PCM)
            await client.hear(Delta)
            await client.say("cancel", "u")
            await client.hear_past_deltas(Cancelled)
            await speak(client, PCM, "next")
            text, done = await client.transcript("next")  # fails on any other request_id
            assert isinstance(done, Done)
            assert text == transcript(PCM)


async def test_session_update_takes_the_served_model_only() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            for payload in ({}, {"model": None}, {"model": "tiny"}, {"model": "tiny", "x": 1}):
                await client.say("session.update", "u", **payload)
                assert await client.next() == SessionUpdated(SESSION, "u", "tiny")
            await client.say("session.update", "u", model="large")
            error = await client.refused("invalid_payload", "unsupported_model")
            assert error.request_id == "u"
            assert error.details == {"field": "payload.model", "allowed": ["tiny"]}
            assert "large" in error.message


# --- Utterances ----------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "base64"])
async def test_an_utterance_comes_back_as_deltas_and_done(binary: bool) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            await speak(client, PCM, "u", binary=binary)
            deltas = []
            while isinstance(event := await client.next(), Delta):
                assert event.request_id == "u"
                deltas.append(event)
            assert all(delta.delta for delta in deltas)
            positions = [delta.audio_ms for delta in deltas]
            assert positions == sorted(positions)
            assert 0 < positions[-1] <= 1000
            assert isinstance(event, Done)
            assert event.text == "".join(delta.delta for delta in deltas) == transcript(PCM)
            usage = event.usage
            assert usage.audio_seconds == 1.0
            assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_silence_gives_no_deltas_and_an_empty_text() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            await speak(client, bytes(32_000))
            assert (await client.hear(Done)).text == ""
            await speak(client, b"")
            done = await client.hear(Done)
            assert (done.text, done.usage.audio_seconds) == ("", 0)


async def test_p12_a_start_while_another_is_active_supersedes_it() -> None:
    with trio.fail_after(10):
        async with serving(Script(step_s=0.005)) as server, server.session() as client:
            await client.start("old")
            await client.send(PCM)
            await speak(client, PCM, "new")
            superseded = await client.hear_past_deltas(Cancelled)
            assert superseded == Cancelled(SESSION, "old", "superseded")
            text, _ = await client.transcript("new")
            assert text == transcript(PCM)


async def test_a_start_while_another_is_finalising_leaves_its_tail() -> None:
    other = speech(1.0, seed=2)
    with trio.fail_after(10):
        async with serving(Script(step_s=0.01)) as server, server.session() as client:
            await speak(client, PCM, "first")
            await speak(client, other, "second")
            texts = {"first": "", "second": ""}
            heard, done = [], {}
            while len(done) < 2:
                event = await client.next()
                heard.append(event.request_id)
                if isinstance(event, Delta):
                    texts[event.request_id] += event.delta
                else:
                    assert isinstance(event, Done), event
                    done[event.request_id] = event.text
            assert texts == done == {"first": transcript(PCM), "second": transcript(other)}
            tail_end = len(heard) - heard[::-1].index("first")
            assert "second" in heard[:tail_end], "the new audio was not taken at the same time"


async def test_audio_for_no_utterance_or_another_is_refused_and_costs_nothing() -> None:
    append = "input_audio_buffer.append"
    with trio.fail_after(10):
        async with serving() as server, server.session() as client, server.bystander():

            async def refused(reason_code: str, request_id: str) -> None:
                error = await client.refused("invalid_payload", reason_code)
                assert error.request_id == request_id

            await client.say(append, "u", audio=base64(PCM))  # before a start
            await refused("no_active_request", "u")
            await client.send(PCM)
            await refused("no_active_request", "connection")
            await client.finish("u")
            await refused("no_active_request", "u")

            await client.start("u")
            await client.say(append, "v", audio=base64(PCM))  # for another
            await refused("request_id_mismatch", "v")
            await client.finish("v")
            await refused("request_id_mismatch", "v")
            await client.start("u")
            await refused("request_id_in_use", "u")

            await client.send(PCM)
            await client.finish("u")
            await client.say(append, "u", audio=base64(PCM))  # after a final
            await client.finish("u")
            answers = [await client.hear_past_deltas((Error, Done)) for _ in range(3)]
            errors = [answer for answer in answers if isinstance(answer, Error)]
            assert [error.reason_code for error in errors] == ["no_active_request"] * 2
            assert [answer.text for answer in answers if isinstance(answer, Done)] == [
                transcript(PCM)
            ]
            await client.alive()


# --- Messages that cannot be acted on ------------------------------------------------------------

LONG = "x" * 257
COMMIT = "input_audio_buffer.commit"
INVALID: dict[str, tuple[str, str, str]] = {
    # What is sent; the error's reason_code and request_id.
    "empty text": ("", "invalid_json", "connection"),
    "no JSON": ("{", "invalid_json", "connection"),
    "NaN": ('{"type":NaN}', "invalid_json", "connection"),
    "deep": ("[" * 100_000, "invalid_json", "connection"),
    "lone surrogate": ('"\\ud800"', "invalid_json", "connection"),
    "list": ("[1]", "not_an_object", "connection"),
    "null": ("null", "not_an_object", "connection"),
    "empty object": ("{}", "invalid_envelope", "connection"),
    "no type": ('{"session_id":"s","request_id":"r"}', "invalid_envelope", "r"),
    "no session_id": ('{"type":"ping","request_id":"r"}', "invalid_envelope", "r"),
    "no request_id": ('{"type":"ping","session_id":"s"}', "invalid_envelope", "connection"),
    "type empty": (envelope("", "r"), "invalid_envelope", "r"),
    "type too long": (envelope(LONG, "r"), "invalid_envelope", "r"),
    "type no text": (envelope(1, "r"), "invalid_envelope", "r"),
    "request_id empty": (envelope("ping", ""), "invalid_envelope", "connection"),
    "request_id too long": (envelope("ping", LONG), "invalid_envelope", "connection"),
    "request_id null": (envelope("ping", None), "invalid_envelope", "connection"),
    "session_id a number": (envelope("ping", "r", session_id=1), "invalid_envelope", "r"),
    "session_id too long": (envelope("ping", "r", session_id=LONG), "invalid_envelope", "r"),
    "unknown type": (envelope("pong", "r"), "unknown_type", "r"),
    "payload a list": (envelope("end", "r", payload=[]), "invalid_payload", "r"),
    "payload a text": (envelope("cancel", "r", payload="x"), "invalid_payload", "r"),
    "final no boolean": (envelope(COMMIT, "r", payload={"final": 1}), "invalid_payload", "r"),
    "reason a number": (envelope("cancel", "r", payload={"reason": 1}), "invalid_payload", "r"),
    "reason too long": (envelope("cancel", "r", payload={"reason": LONG}), "invalid_payload", "r"),
    "model a number": (
        envelope("session.update", "r", payload={"model": 1}),
        "invalid_payload",
        "r",
    ),
    "audio missing": (envelope("input_audio_buffer.append", "u"), "invalid_payload", "u"),
}
INVALID_AUDIO: dict[str, str | bytes] = {
    "bad base64": "@@@@",
    "no padding": "AAA",
    "url-safe alphabet": "__--",
    "white space": "AA AA",
    "not ASCII": "ÄÄÄÄ",
    "odd": base64(b"123"),
    "empty": "",
    "binary, odd": b"123",
    "binary, empty": b"",
}


@pytest.mark.parametrize("name", INVALID)
async def test_p9_an_invalid_message_is_an_error_and_nothing_more(name: str) -> None:
    message, reason_code, request_id = INVALID[name]
    code = "invalid_payload" if reason_code == "invalid_payload" else "invalid_message"
    with trio.fail_after(10):
        async with serving() as server, server.session() as client, server.bystander():
            await client.start("u")
            await client.send(PCM[:CHUNK])
            await client.send(message)
            error = await client.hear_past_deltas(Error)
            assert (error.code, error.reason_code) == (code, reason_code)
            assert error.request_id == request_id
            assert len(error.message) < 1000
            await client.send(PCM[CHUNK:])
            await client.finish("u")
            done = await client.hear_past_deltas(Done)
            assert done.text == transcript(PCM)


@pytest.mark.parametrize("name", INVALID_AUDIO)
async def test_p9_invalid_audio_is_an_error_and_not_heard(name: str) -> None:
    audio = INVALID_AUDIO[name]
    with trio.fail_after(10):
        async with serving() as server, server.session() as client, server.bystander():
            await client.start("u")
            await client.send(PCM)
            if isinstance(audio, bytes):
                await client.send(audio)
            else:
                await client.say("input_audio_buffer.append", "u", audio=audio)
            error = await client.hear_past_deltas(Error)
            assert (error.code, error.reason_code) == ("invalid_payload", "invalid_audio")
            assert error.request_id == ("connection" if isinstance(audio, bytes) else "u")
            assert error.details["field"] == "payload.audio"
            await client.finish("u")
            assert (await client.hear_past_deltas(Done)).text == transcript(PCM)


async def test_unknown_fields_are_ignored() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            await client.send(envelope("ping", "p", event_id="e", payload={"x": 1}))
            await client.hear(Pong)


# --- The engine's troubles -----------------------------------------------------------------------


async def test_an_utterance_without_an_engine_slot_is_an_error() -> None:
    with trio.fail_after(10):
        async with (
            serving(Script(slots=1)) as server,
            server.bystander(),
            server.session() as client,
        ):
            await client.start("u")
            error = await client.refused("server_at_capacity", "no_engine_slot")
            assert error.request_id == "u"
            await client.alive()


async def test_more_than_a_few_tails_are_refused() -> None:
    script = Script(slots=MAX_TAILS + 1, hang_after=0)
    with trio.fail_after(10):
        async with serving(script) as server, server.session() as client:
            for number in range(MAX_TAILS):
                await speak(client, b"", f"u{number}")
            await client.start("one too many")
            error = await client.refused("server_at_capacity", "too_many_finalising")
            assert error.request_id == "one too many"
            await client.alive()


async def test_p11_a_stream_that_fails_is_the_utterances_one_error() -> None:
    with trio.fail_after(10):
        async with serving(Script(fail_after=3 * FRAME)) as server, server.session() as client:
            await client.start("u")
            await client.send(PCM)
            error = await client.hear_past_deltas(Error)
            assert (error.code, error.reason_code) == ("engine_unavailable", "scripted")
            assert error.request_id == "u"
            assert error.details == {"retry": True}
            await client.say("input_audio_buffer.append", "u", audio=base64(PCM))  # on its way
            await client.alive()


async def test_p11_an_engine_that_dies_is_an_error_and_comes_back() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            await client.start("u")
            await client.alive()
            server.scripted.kill()
            error = await client.refused("engine_unavailable", "engine_lost")
            assert error.request_id == "u"
            await client.start("v")
            error = await client.refused("engine_unavailable", "engine_not_ready")
            assert error.request_id == "v"
            await server.engine.wait_ready()
            await speak(client, PCM, "w")
            assert (await client.hear_past_deltas(Done)).text == transcript(PCM)
