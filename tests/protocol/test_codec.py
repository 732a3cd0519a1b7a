"""The codec: every documented message, every way to get one wrong, and what comes back out."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol import strategies
from voxtral_actors.client.codec import decode_event, encode_command
from voxtral_actors.limits import MAX_ID_CHARS, MAX_REASON_CHARS
from voxtral_actors.protocol.codec import decode, encode
from voxtral_actors.protocol.commands import (
    Append,
    BadMessage,
    Cancel,
    Command,
    End,
    Finalise,
    Inbound,
    Ping,
    SessionUpdate,
    Start,
    TooBig,
)
from voxtral_actors.protocol.events import (
    ERROR_CODES,
    EVENT_CLASSES,
    Delta,
    Done,
    Error,
    Event,
    Usage,
)

MAX_BYTES = 4096
LONGEST = "x" * MAX_ID_CHARS
COMMIT = "input_audio_buffer.commit"
APPEND = "input_audio_buffer.append"


def frame(kind: object = "ping", payload: object = None, **fields: object) -> str:
    """A message's text; a payload of None is left out, a field of None too."""
    message = {"type": kind, "session_id": "s", "request_id": "r", "payload": payload} | fields
    return json.dumps({name: value for name, value in message.items() if value is not None})


def bad(text: str | bytes) -> BadMessage:
    message = decode(text, MAX_BYTES)
    assert isinstance(message, BadMessage)
    assert message.code in ERROR_CODES
    return message


# --- What is right -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "payload", "command"),
    [
        ("ping", None, Ping("s", "r")),
        ("ping", {"anything": [1, {"deep": None}]}, Ping("s", "r")),
        ("end", None, End("s", "r")),
        ("end", {"ignored": 1}, End("s", "r")),
        ("cancel", None, Cancel("s", "r")),
        ("cancel", {"reason": None}, Cancel("s", "r")),
        ("cancel", {"reason": "schön 🎙"}, Cancel("s", "r", "schön 🎙")),
        ("session.update", None, SessionUpdate("s", "r")),
        ("session.update", {"model": "m"}, SessionUpdate("s", "r", "m")),
        (COMMIT, None, Start("s", "r")),
        (COMMIT, {}, Start("s", "r")),
        (COMMIT, {"final": False}, Start("s", "r")),
        (COMMIT, {"final": True}, Finalise("s", "r")),
        (APPEND, {"audio": "AAECAw=="}, Append(b"\0\1\2\3", "s", "r")),
    ],
)
def test_documented_messages(kind: str, payload: object, command: Command) -> None:
    assert decode(frame(kind, payload), MAX_BYTES) == command


def test_a_binary_frame_is_audio_for_the_active_utterance() -> None:
    assert decode(b"\0\1", MAX_BYTES) == Append(b"\0\1", None, None)


def test_unknown_fields_of_a_message_are_ignored() -> None:
    assert decode(frame("end", version=2), MAX_BYTES) == End("s", "r")


def test_ids_may_be_of_any_text() -> None:
    text = frame("ping", session_id="\0 \n", request_id="🎙" * MAX_ID_CHARS)

    assert decode(text, MAX_BYTES) == Ping("\0 \n", "🎙" * MAX_ID_CHARS)


@given(strategies.all_commands)
def test_a_command_comes_out_as_it_went_in(command: Command) -> None:
    assert decode(encode_command(command), 2**20) == command


# --- What is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "no",
        "{",
        '{"type":"ping"',
        "NaN",
        "\ufeff{}",
        '"\ud800"',
        r'{"a":"\ud800"}',
        "{} 2",
    ],
)
def test_p9_invalid_json(text: str) -> None:
    error = bad(text)

    assert (error.code, error.reason_code) == ("invalid_message", "invalid_json")
    assert (error.session_id, error.request_id) == (None, None)


@pytest.mark.parametrize("text", ["[]", "1", '"ping"', "null", "true"])
def test_p9_json_that_is_no_object(text: str) -> None:
    error = bad(text)

    assert (error.code, error.reason_code) == ("invalid_message", "not_an_object")


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 20_000, "[" * 9_000 + "]" * 9_000])
def test_p9_nesting_without_end(text: str) -> None:
    assert isinstance(decode(text, 2**20), BadMessage)
    ping = f'{{"type":"ping","session_id":"s","request_id":"r","payload":{{"a":{text}}}}}'
    assert isinstance(decode(ping, 2**20), BadMessage)


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "1e99999"])
def test_p9_numbers_without_end(number: str) -> None:
    """A number that nobody needs is skipped, whatever it is; one that is needed is an error."""
    error = decode(f'{{"a":{number}}}', 2**20)
    payload = f'{{"payload":{{"final":{number}}},{frame(COMMIT)[1:]}'

    assert isinstance(error, BadMessage)
    assert error.reason_code == "invalid_envelope"
    assert isinstance(decode(payload, 2**20), BadMessage)
    assert decode(payload.replace(COMMIT, "ping"), 2**20) == Ping("s", "r")


@pytest.mark.parametrize("number", ["1e308", "1.7976931348623157e308"])
@pytest.mark.parametrize("key", ["a", "payload", "session_id"])
def test_p9_hard_floats_by_the_thousand_are_skipped_and_not_converted(
    number: str, key: str
) -> None:
    """A mebibyte of them takes 15 s to convert and 5 ms to skip: the bound tells the two apart."""
    frame = f'{{"{key}":[{",".join([number] * (2**20 // (len(number) + 1)))}]}}'
    began = time.process_time()

    assert isinstance(decode(frame, 2**21), BadMessage)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("name", ["type", "session_id", "request_id"])
@pytest.mark.parametrize("value", [None, "", LONGEST + "x", 1, True, [], {}])
def test_p9_an_envelope_field_that_is_missing_or_wrong(name: str, value: object) -> None:
    error = bad(frame(**{name: value}))

    assert (error.code, error.reason_code) == ("invalid_message", "invalid_envelope")
    assert error.details["field"] == name
    assert f"1 to {MAX_ID_CHARS} characters" in str(error.details["allowed"])
    assert name in error.message
    assert f"1 to {MAX_ID_CHARS} characters" in error.message


@pytest.mark.parametrize("name", ["session_id", "request_id"])
def test_an_error_is_reported_under_the_ids_that_can_be_read(name: str) -> None:
    error = bad(frame(**{name: ""}))
    expected = {"session_id": "s", "request_id": "r"} | {name: None}

    assert {"session_id": error.session_id, "request_id": error.request_id} == expected
    assert (bad(frame(7)).session_id, bad(frame(7)).request_id) == ("s", "r")


@pytest.mark.parametrize("name", ["type", "session_id", "request_id"])
def test_the_longest_id_is_an_id(name: str) -> None:
    message = decode(frame(**{name: LONGEST}), MAX_BYTES)
    unknown = isinstance(message, BadMessage) and message.reason_code == "unknown_type"

    assert unknown if name == "type" else isinstance(message, Ping)


@pytest.mark.parametrize("kind", ["sing", "PING", " ping", "session.created", LONGEST])
def test_p9_an_unknown_type(kind: str) -> None:
    error = bad(frame(kind))

    assert (error.code, error.reason_code) == ("invalid_message", "unknown_type")
    assert (error.session_id, error.request_id) == ("s", "r")
    assert error.details["field"] == "type"
    assert error.details["allowed"] == list(strategies.TYPES)
    assert str(error.details["value"]).rstrip("…") in kind
    assert len(error.message) < MAX_ID_CHARS


@pytest.mark.parametrize(
    ("kind", "payload", "field", "allowed"),
    [
        *[(kind, wrong, "payload", "object") for kind in strategies.TYPES for wrong in ("no", 1)],
        ("cancel", {"reason": 1}, "payload.reason", "text"),
        ("cancel", {"reason": "x" * (MAX_REASON_CHARS + 1)}, "payload.reason", "256"),
        ("session.update", {"model": ["m"]}, "payload.model", "text"),
        ("session.update", {"model": LONGEST + "x"}, "payload.model", "256"),
        (COMMIT, {"final": 1}, "payload.final", "true or false"),
        (COMMIT, {"final": "true"}, "payload.final", "true or false"),
        (APPEND, None, "payload.audio", "base64"),
        (APPEND, {"audio": 1}, "payload.audio", "base64"),
        (APPEND, {"audio": {}}, "payload.audio", "base64"),
    ],
)
def test_p9_a_payload_that_its_type_does_not_take(
    kind: str, payload: object, field: str, allowed: str
) -> None:
    error = bad(frame(kind, payload))

    assert (error.code, error.reason_code) == ("invalid_payload", "invalid_payload")
    assert (error.session_id, error.request_id) == ("s", "r")
    assert error.details["field"] == field
    assert allowed in str(error.details["allowed"])
    assert field in error.message
    assert allowed in error.message


def test_p9_a_payload_of_null_is_none() -> None:
    text = '{"type":"ping","session_id":"s","request_id":"r","payload":null}'

    assert bad(text).details["field"] == "payload"


@pytest.mark.parametrize(
    "audio",
    ["", "?", "A", "AA", "AAA", "AA=", "AA==", "AAAA", " AAA=", "AAA=\n", "AAA=AAA=", "_-A=", "é"],
)
def test_p9_audio_that_is_none(audio: str) -> None:
    """No base64 of the standard alphabet with its padding, nothing, or half a sample."""
    error = bad(frame(APPEND, {"audio": audio}))

    assert (error.code, error.reason_code) == ("invalid_payload", "invalid_audio")
    assert (error.session_id, error.request_id) == ("s", "r")
    assert error.details["field"] == "payload.audio"
    assert "PCM16" in str(error.details["allowed"])


@pytest.mark.parametrize("audio", [b"", b"\0", b"\0\0\0"])
def test_p9_binary_that_is_no_audio(audio: bytes) -> None:
    error = bad(audio)

    assert (error.code, error.reason_code) == ("invalid_payload", "invalid_audio")


@settings(max_examples=300)
@given(strategies.frames)
def test_p9_decode_never_raises(text: str | bytes) -> None:
    message = decode(text, MAX_BYTES)

    assert isinstance(message, get_args(Inbound))
    if isinstance(message, BadMessage):
        assert message.code in ERROR_CODES
        assert message.message
        assert message.details["field"]
        assert message.details["allowed"]
        error = Error("s", "r", message.code, message.message, message.reason_code, message.details)
        assert decode_event(encode(error)) == error


# --- Size ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["x", "é", "€", "🎙"])
def test_the_size_limit_counts_bytes(character: str) -> None:
    message = frame("ping", {"a": "?"}).replace("?", character * 10)
    size = len(message.encode())

    assert decode(message, size) == Ping("s", "r")
    assert decode(message, size - 1) == TooBig(size - 1)


def test_the_size_limit_holds_for_binary() -> None:
    assert isinstance(decode(bytes(10), 10), Append)
    assert decode(bytes(11), 10) == TooBig(10)


@given(st.text(max_size=30) | st.binary(max_size=30), st.integers(1, 40))
def test_too_big_is_what_has_more_bytes(text: str | bytes, limit: int) -> None:
    size = len(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)

    assert isinstance(decode(text, limit), TooBig) == (size > limit)


# --- Audio ---------------------------------------------------------------------------------------


@given(st.binary(min_size=2, max_size=200), st.lists(st.integers(0, 100), max_size=6))
def test_audio_arrives_as_it_was_sent_however_it_was_cut(audio: bytes, cuts: list[int]) -> None:
    audio = audio[: len(audio) // 2 * 2]
    bounds = [0, *sorted(min(2 * cut, len(audio)) for cut in cuts), len(audio)]
    arrived = b""
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
        if start < end:
            ids = ("s", "r") if number % 2 else (None, None)
            message = decode(encode_command(Append(audio[start:end], *ids)), MAX_BYTES)
            assert isinstance(message, Append)
            arrived += message.audio
    assert arrived == audio


# --- Events --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=lambda cls: str(cls.TYPE))
@settings(max_examples=30)
@given(data=st.data())
def test_an_event_comes_out_as_it_went_in(cls: type[Event], data: st.DataObject) -> None:
    event = data.draw(strategies.events_of(cls))
    text = encode(event)
    message: dict[str, Any] = json.loads(text)

    assert list(message) == ["type", "session_id", "request_id", "payload"]
    assert message["type"] == cls.TYPE
    assert (message["session_id"], message["request_id"]) == (event.session_id, event.request_id)
    assert not message["payload"].keys() & {"type", "session_id", "request_id"}
    assert decode_event(text) == event


def test_an_event_on_the_wire() -> None:
    done = Done("s", "r", "schön 🎙", Usage(1, 2, 3, 0.5))

    assert json.loads(encode(done)) == {
        "type": "transcription.done",
        "session_id": "s",
        "request_id": "r",
        "payload": {
            "text": "schön 🎙",
            "usage": {
                "prompt_tokens": 1,
                "completion_tokens": 2,
                "total_tokens": 3,
                "audio_seconds": 0.5,
            },
        },
    }
    assert "schön 🎙" in encode(done), "UTF-8, not escapes"


def test_half_a_surrogate_pair_in_a_text_becomes_a_question_mark() -> None:
    """No UTF-8 has one; an engine that reports one must not cost the connection."""
    delta = Delta("s", "r", "a\ud83c🎙é", 1)

    assert decode_event(encode(delta)) == Delta("s", "r", "a?🎙é", 1)
