"""The close-code table: why a server ends a connection, and what the client should do next.

A code is sent in the WebSocket Close frame with its slug as the reason. Codes from 4000 on are
this server's own (RFC 6455 section 7.4.2). `README.md` prints this table; a test keeps them equal.
"""

from __future__ import annotations

import enum

import attrs

from voxtral_actors.limits import (
    RETRY_AFTER_CAPACITY_S,
    RETRY_AFTER_DRAIN_S,
    RETRY_AFTER_ENGINE_S,
)
from voxtral_actors.protocol.events import Error, SessionEnd


@attrs.frozen
class CloseSpec:
    """One row of the table."""

    code: int
    slug: str
    """The reason in the Close frame, at most `limits.MAX_CLOSE_REASON_BYTES`."""
    retry: bool
    """Whether the same client may try again as it is."""
    meaning: str
    retry_after_s: float | None = None
    error: str | None = None
    """The code of the `error` event that goes before the Close frame, if one does."""


class Close(enum.Enum):
    """Every way in which the server closes an accepted WebSocket."""

    NORMAL = CloseSpec(1000, "end", retry=False, meaning="the client sent `end`")
    BAD_KEY = CloseSpec(
        1008,
        "authentication_failed",
        retry=False,
        meaning="the key is missing or wrong",
        error="authentication_failed",
    )
    BAD_ORIGIN = CloseSpec(
        1008,
        "origin_not_allowed",
        retry=False,
        meaning="the browser's Origin is not on WS_ALLOWED_ORIGINS",
        error="origin_not_allowed",
    )
    TOO_BIG = CloseSpec(
        1009,
        "message_too_big",
        retry=False,
        meaning="a message was larger than WS_MAX_MESSAGE_BYTES",
    )
    BUG = CloseSpec(
        1011,
        "internal_error",
        retry=True,
        meaning="the server failed; the fault is ours",
        error="internal_error",
    )
    DRAINING = CloseSpec(
        1012,
        "shutting_down",
        retry=True,
        meaning="the server is being restarted or stopped",
        retry_after_s=RETRY_AFTER_DRAIN_S,
        error="shutting_down",
    )
    AT_CAPACITY = CloseSpec(
        1013,
        "server_at_capacity",
        retry=True,
        meaning="MAX_CONCURRENT_CONNECTIONS are open",
        retry_after_s=RETRY_AFTER_CAPACITY_S,
        error="server_at_capacity",
    )
    ENGINE_UNAVAILABLE = CloseSpec(
        1013,
        "engine_unavailable",
        retry=True,
        meaning="the engine is starting or restarting",
        retry_after_s=RETRY_AFTER_ENGINE_S,
        error="engine_unavailable",
    )
    IDLE = CloseSpec(
        4000,
        "idle_timeout",
        retry=True,
        meaning="nothing was said by either side for WS_IDLE_TIMEOUT_S",
    )
    MAX_DURATION = CloseSpec(
        4003,
        "max_duration",
        retry=True,
        meaning="the connection reached WS_MAX_CONNECTION_DURATION_S",
    )
    SLOW_CONSUMER = CloseSpec(
        4008,
        "slow_consumer",
        retry=True,
        meaning="the client did not read for WS_WRITE_DEADLINE_S; it finds a reset connection",
    )
    TOO_MANY_BAD = CloseSpec(
        4009,
        "too_many_bad_messages",
        retry=False,
        meaning="WS_MAX_BAD_MESSAGES messages could not be acted on",
        error="invalid_message",
    )

    @property
    def spec(self) -> CloseSpec:
        return self.value


def farewell(session_id: str, request_id: str, close: Close) -> Error | SessionEnd:
    """The event that goes before a Close frame: an `error` where the table has one."""
    spec = close.spec
    if spec.error is None:
        return SessionEnd(session_id, request_id, spec.slug)
    details: dict[str, object] = {"retry": spec.retry}
    if spec.retry_after_s is not None:
        details["retry_after_s"] = spec.retry_after_s
    return Error(session_id, request_id, spec.error, spec.meaning, spec.slug, details)
