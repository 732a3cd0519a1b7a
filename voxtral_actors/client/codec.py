"""The wire as a client speaks it: text to events, commands to frames.

The server's side of the same dialect is `protocol.codec`. Reading is tolerant where a newer server
may differ: an unknown type becomes `Unknown`, unknown payload fields are ignored. A known event
that lacks a field or has one of the wrong type is no such difference and raises `BadEventError`.
"""

from __future__ import annotations

from typing import assert_never

import attrs
import msgspec
import pybase64

from voxtral_actors.protocol.commands import (
    Append,
    Cancel,
    Command,
    End,
    Finalise,
    Ping,
    SessionUpdate,
    Start,
)
from voxtral_actors.protocol.events import EVENT_CLASSES, Event


class BadEventError(ValueError):
    """The server sent something that is no event of this protocol."""


@attrs.frozen
class Unknown:
    """An event of a type that this client does not know."""

    type: str
    session_id: str
    request_id: str


class _Message(msgspec.Struct):
    type: str
    session_id: str
    request_id: str
    payload: dict[str, object] = {}


_CLASSES: dict[str, type[Event]] = {cls.TYPE: cls for cls in EVENT_CLASSES}
_decode = msgspec.json.Decoder(_Message).decode
_encode = msgspec.json.Encoder().encode


def decode_event(text: str | bytes) -> Event | Unknown:
    """Read one server message.

    Raises:
        BadEventError: it is no event; the message says what is wrong with it.
    """
    try:
        message = _decode(text)
        cls = _CLASSES.get(message.type)
        if cls is None:
            return Unknown(message.type, message.session_id, message.request_id)
        ids = {"session_id": message.session_id, "request_id": message.request_id}
        return msgspec.convert(message.payload | ids, cls)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadEventError(f"{error} in {text[:80]!r}") from None


def encode_command(command: Command) -> str | bytes:
    """Write a command as one frame: text, or binary for an `Append` that names no utterance."""
    match command:
        case Append(audio=audio, session_id=str(), request_id=str()):
            payload: dict[str, object] = {"audio": pybase64.b64encode_as_string(audio)}
            kind = "input_audio_buffer.append"
        case Append(audio=audio):
            return audio
        case Start():
            kind, payload = "input_audio_buffer.commit", {"final": False}
        case Finalise():
            kind, payload = "input_audio_buffer.commit", {"final": True}
        case Cancel(reason=reason):
            kind, payload = "cancel", {} if reason is None else {"reason": reason}
        case SessionUpdate(model=model):
            kind, payload = "session.update", {} if model is None else {"model": model}
        case Ping():
            kind, payload = "ping", {}
        case End():
            kind, payload = "end", {}
        case _:
            assert_never(command)
    message = {
        "type": kind,
        "session_id": command.session_id,
        "request_id": command.request_id,
        "payload": payload,
    }
    return _encode(message).decode()
