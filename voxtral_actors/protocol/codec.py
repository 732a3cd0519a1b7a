"""The wire's one dialect: frames to commands, events to text.

A text frame is one JSON object `{"type", "session_id", "request_id", "payload"}`; a binary frame is
PCM16 for the active utterance. `decode` never raises: what is no valid message becomes a
`BadMessage` that names the field, the value and what is allowed. `encode` never fails on an event.

Decoding has two steps. The envelope is decoded with the payload left raw, then the payload by its
type's own decoder: so an error in a payload still knows the ids it has to be reported under, and
the base64 of an `append` is scanned once and copied once. Which field is wrong is read from what
msgspec says; what it may hold is in `_ALLOWED`.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import attrs
import msgspec
import pybase64

from voxtral_actors.limits import (
    BYTES_PER_SAMPLE,
    MAX_ID_CHARS,
    MAX_QUOTED_CHARS,
    MAX_REASON_CHARS,
)
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
from voxtral_actors.protocol.events import EVENT_CLASSES, Event

_Id: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]
_ABSENT = msgspec.Raw(b"{}")

_ALLOWED = {
    "frame": "a JSON object with type, session_id, request_id and payload",
    "type": f"text of 1 to {MAX_ID_CHARS} characters",
    "session_id": f"text of 1 to {MAX_ID_CHARS} characters",
    "request_id": f"text of 1 to {MAX_ID_CHARS} characters",
    "payload": "an object",
    "payload.reason": f"text of at most {MAX_REASON_CHARS} characters",
    "payload.model": f"text of at most {MAX_ID_CHARS} characters",
    "payload.final": "true or false",
    "payload.audio": "base64 of PCM16 little endian, 16 kHz, one channel",
}
_FIELD_AT_FAULT = re.compile(r"(?:required field `|at `\$\.)(\w+)`")


class _Envelope(msgspec.Struct):
    type: _Id
    session_id: _Id
    request_id: _Id
    payload: msgspec.Raw = _ABSENT


class _Ids(msgspec.Struct):
    """What can be saved of a broken envelope."""

    session_id: msgspec.Raw = msgspec.Raw(b"null")
    request_id: msgspec.Raw = msgspec.Raw(b"null")


class _Nothing(msgspec.Struct):
    """A payload that may hold anything and means nothing."""


class _CancelPayload(msgspec.Struct):
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)] | None = None


class _UpdatePayload(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARS)] | None = None


class _CommitPayload(msgspec.Struct):
    final: bool = False


class _AppendPayload(msgspec.Struct):
    audio: str


def _append(env: _Envelope, payload: _AppendPayload) -> Inbound:
    try:
        audio = pybase64.b64decode(payload.audio, validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
        return _bad_audio("audio is not base64", str(error), env.session_id, env.request_id)
    return _checked(audio, env.session_id, env.request_id)


def _commit(env: _Envelope, payload: _CommitPayload) -> Command:
    return (Finalise if payload.final else Start)(env.session_id, env.request_id)


def _plain(command: type[Ping | End]) -> Callable[[_Envelope, _Nothing], Command]:
    return lambda env, _: command(env.session_id, env.request_id)


def _message(
    payload: type[msgspec.Struct], make: Callable[[_Envelope, Any], Inbound]
) -> tuple[msgspec.json.Decoder[Any], Callable[[_Envelope, Any], Inbound]]:
    return msgspec.json.Decoder(payload), make


_MESSAGES = {
    "ping": _message(_Nothing, _plain(Ping)),
    "end": _message(_Nothing, _plain(End)),
    "cancel": _message(
        _CancelPayload, lambda env, p: Cancel(env.session_id, env.request_id, p.reason)
    ),
    "session.update": _message(
        _UpdatePayload, lambda env, p: SessionUpdate(env.session_id, env.request_id, p.model)
    ),
    "input_audio_buffer.commit": _message(_CommitPayload, _commit),
    "input_audio_buffer.append": _message(_AppendPayload, _append),
}
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_ids = msgspec.json.Decoder(_Ids).decode
_decode_id = msgspec.json.Decoder(_Id).decode


def decode(frame: str | bytes, max_bytes: int) -> Inbound:
    """Read one WebSocket message of at most `max_bytes` bytes of UTF-8 or PCM."""
    if len(frame) > max_bytes or (
        isinstance(frame, str)
        and len(frame) * 4 > max_bytes
        and len(frame.encode("utf-8", "surrogatepass")) > max_bytes
    ):
        return TooBig(max_bytes)
    if isinstance(frame, bytes):
        return _checked(frame, None, None)
    try:
        env = _decode_envelope(frame)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        return _bad_envelope(frame, error)
    known = _MESSAGES.get(env.type)
    if known is None:
        return BadMessage(
            "invalid_message",
            "unknown_type",
            f"type {_quoted(env.type)} is unknown; allowed: {', '.join(_MESSAGES)}",
            {"field": "type", "value": _quoted(env.type), "allowed": list(_MESSAGES)},
            env.session_id,
            env.request_id,
        )
    decoder, make = known
    try:
        payload = decoder.decode(env.payload)
    except (msgspec.DecodeError, RecursionError) as error:
        found = _FIELD_AT_FAULT.search(str(error))
        field = f"payload.{found[1]}" if found else "payload"
        text, details = _explained(f"payload of {env.type}", field, error)
        ids = env.session_id, env.request_id
        return BadMessage("invalid_payload", "invalid_payload", text, details, *ids)
    return make(env, payload)


def encode(event: Event) -> str:
    """Write an event as the text of one frame; half a surrogate pair becomes a question mark."""
    payload = {name: getattr(event, name) for name in _PAYLOAD_FIELDS[type(event)]}
    message = {
        "type": event.TYPE,
        "session_id": event.session_id,
        "request_id": event.request_id,
        "payload": payload,
    }
    try:
        return _encode(message).decode()
    except UnicodeEncodeError:  # no UTF-8 has half a surrogate pair, but a str may
        text = json.dumps(msgspec.to_builtins(message), ensure_ascii=False)
        return _encode(json.loads(text.encode(errors="replace"))).decode()


_encode = msgspec.json.Encoder().encode
_PAYLOAD_FIELDS = {
    cls: tuple(f.name for f in attrs.fields(cls) if f.name not in {"session_id", "request_id"})
    for cls in EVENT_CLASSES
}


def _checked(audio: bytes, session_id: str | None, request_id: str | None) -> Inbound:
    """An `Append`, if the audio is a whole number of samples and not empty."""
    if not audio:
        return _bad_audio("audio is empty", "at least one sample", session_id, request_id)
    if len(audio) % BYTES_PER_SAMPLE:
        problem = f"{len(audio)} bytes; PCM16 has an even number"
        return _bad_audio("audio has an odd number of bytes", problem, session_id, request_id)
    return Append(audio, session_id, request_id)


def _bad_audio(
    message: str, problem: str, session_id: str | None, request_id: str | None
) -> BadMessage:
    details: dict[str, object] = {
        "field": "payload.audio",
        "problem": problem,
        "allowed": _ALLOWED["payload.audio"],
    }
    return BadMessage("invalid_payload", "invalid_audio", message, details, session_id, request_id)


def _bad_envelope(frame: str, error: Exception) -> BadMessage:
    """The error for a frame that is no envelope, under whatever valid ids can still be read.

    Nothing but the ids is made into objects: a mebibyte of hard floats would take many seconds.
    """
    try:
        found_ids = _decode_ids(frame)
    except msgspec.ValidationError:
        explained = _explained("no JSON object", "frame", error)
        return BadMessage("invalid_message", "not_an_object", *explained)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as problem:
        explained = _explained("no JSON that can be read", "frame", problem)
        return BadMessage("invalid_message", "invalid_json", *explained)
    found = _FIELD_AT_FAULT.search(str(error))
    explained = _explained("envelope", found[1] if found else "frame", error)
    ids = _id_or_none(found_ids.session_id), _id_or_none(found_ids.request_id)
    return BadMessage("invalid_message", "invalid_envelope", *explained, *ids)


def _explained(what: str, field: str, problem: Exception) -> tuple[str, dict[str, object]]:
    """Text and details of an error: the field, what is wrong with it, and what is allowed."""
    details: dict[str, object] = {
        "field": field,
        "problem": str(problem),
        "allowed": _ALLOWED[field],
    }
    return f"{what}: {problem}; allowed for {field}: {_ALLOWED[field]}", details


def _id_or_none(raw: msgspec.Raw) -> str | None:
    try:
        return _decode_id(raw)
    except msgspec.DecodeError:
        return None


def _quoted(text: str) -> str:
    return text if len(text) <= MAX_QUOTED_CHARS else text[:MAX_QUOTED_CHARS] + "…"
