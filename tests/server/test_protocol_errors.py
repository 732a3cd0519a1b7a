"""The wire, row by row, over real sockets: what earns an error, and that it is one error only."""

from __future__ import annotations

import pytest
import trio

from tests.engine.scripted import FRAME, Script, speech, transcript
from tests.server.harness import serving
from tests.server.wire_client import envelope
from voxtral_actors.limits import MAX_TAILS
from voxtral_actors.protocol.events import (
    Done,
    Error,
    Pong,
)

CHUNK = 2560
PCM = speech(1.0, seed=1)


# --- Messages that cannot be acted on ------------------------------------------------------------

LONG = "x" * 257
COMMIT = "input_audio_buffer.commit"
INVALID: dict[str, tuple[str, str, str]] = {
    # What is sent; the error's reason_code and request_id.
    "empty text": ("", "invalid_json", "connection"),
    "no JSON": ("{", "invalid_json", "connection"),
    "NaN": ('{"type":NaN}', "invalid_json", "connection"),
    "nested lists": ("[" * 100_000, "not_an_object", "connection"),
    "nested objects": ('{"a":' * 100_000, "invalid_json", "connection"),
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
    "odd": "MTIz",
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
                await client.utter(b"", f"u{number}")
            await client.start("one too many")
            error = await client.refused("server_at_capacity", "too_many_finalising")
            assert error.request_id == "one too many"
            await client.alive()


async def test_p11_a_stream_that_fails_is_the_utterances_one_error() -> None:
    with trio.fail_after(10):
        script = Script(fail_after=3 * FRAME)
        async with (
            serving(script, VOXTRAL_REPLAY_BUDGET_S="0") as server,
            server.session() as client,
        ):
            await client.start("u")
            await client.send(PCM)
            error = await client.hear_past_deltas(Error)
            assert (error.code, error.reason_code) == ("engine_unavailable", "scripted")
            assert error.request_id == "u"
            assert error.details == {"retry": True}
            await client.append(PCM, "u")  # on its way
            await client.alive()


async def test_p11_an_engine_that_dies_is_an_error_and_comes_back() -> None:
    with trio.fail_after(10):
        async with serving(VOXTRAL_REPLAY_BUDGET_S="0") as server, server.session() as client:
            await client.start("u")
            await client.alive()
            server.scripted.kill()
            error = await client.refused("engine_unavailable", "engine_lost")
            assert error.request_id == "u"
            await client.start("v")
            error = await client.refused("engine_unavailable", "engine_not_ready")
            assert error.request_id == "v"
            await server.engine.wait_ready()
            await client.utter(PCM, "w")
            assert (await client.hear_past_deltas(Done)).text == transcript(PCM)
