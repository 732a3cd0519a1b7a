"""What the server says: one frozen noun a message, joined in the union `Event`.

Every event carries `session_id` and `request_id`; its other attributes are the payload, by name.
`TYPE` is the message's `type` on the wire. `protocol.codec` writes them.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

import attrs

CONNECTION_REQUEST_ID = "connection"
"""The request id of events that belong to the connection and to no utterance."""

ERROR_CODES = frozenset({
    "authentication_failed",
    "origin_not_allowed",
    "server_at_capacity",
    "engine_unavailable",
    "shutting_down",
    "invalid_message",
    "invalid_payload",
    "rate_limited",
    "backlog_exceeded",
    "slow_consumer",
    "internal_error",
})  # fmt: skip
"""Every value that `Error.code` takes."""


@attrs.frozen
class SessionCreated:
    """The first event of an admitted connection. `created` is Unix time in seconds."""

    TYPE: ClassVar = "session.created"
    session_id: str
    request_id: str
    id: str
    created: int
    model: str
    engine: str
    sample_rate: int
    transcription_delay_ms: int
    limits: dict[str, float]
    note: str = ""


@attrs.frozen
class SessionUpdated:
    """`session.update` was accepted."""

    TYPE: ClassVar = "session.updated"
    session_id: str
    request_id: str
    model: str


@attrs.frozen
class Delta:
    """New final text. `audio_ms` is how much of the utterance's audio the engine has consumed."""

    TYPE: ClassVar = "transcription.delta"
    session_id: str
    request_id: str
    delta: str
    audio_ms: int


@attrs.frozen
class Usage:
    """What the utterance cost: the engine's tokens, and the audio in seconds."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    audio_seconds: float


@attrs.frozen
class Done:
    """Terminal: the whole text, equal to the joined deltas."""

    TYPE: ClassVar = "transcription.done"
    session_id: str
    request_id: str
    text: str
    usage: Usage


@attrs.frozen
class Cancelled:
    """Terminal: nothing more of `request_id` is sent. Also the answer to an idle `cancel`."""

    TYPE: ClassVar = "cancelled"
    session_id: str
    request_id: str
    reason: str


@attrs.frozen
class Error:
    """Terminal when it ends an utterance, else about one message; `code` is in `ERROR_CODES`."""

    TYPE: ClassVar = "error"
    session_id: str
    request_id: str
    code: str
    message: str
    reason_code: str
    details: dict[str, object] = attrs.field(factory=dict)


@attrs.frozen
class Pong:
    """The answer to `ping`, with its ids."""

    TYPE: ClassVar = "pong"
    session_id: str
    request_id: str


@attrs.frozen
class SessionEnd:
    """The server is about to close the connection in good order; `reason` is a slug."""

    TYPE: ClassVar = "session_end"
    session_id: str
    request_id: str
    reason: str


Event: TypeAlias = (
    SessionCreated | SessionUpdated | Delta | Done | Cancelled | Error | Pong | SessionEnd
)
EVENT_CLASSES: tuple[type[Event], ...] = (
    SessionCreated,
    SessionUpdated,
    Delta,
    Done,
    Cancelled,
    Error,
    Pong,
    SessionEnd,
)
