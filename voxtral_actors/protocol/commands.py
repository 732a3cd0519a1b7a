"""What a client may say: one frozen noun a message, joined in the union `Command`.

`protocol.codec` makes them from frames. A frame that is no valid message becomes a `BadMessage`,
which travels the same way as a command, so that errors keep their place in the order.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from voxtral_actors.limits import BYTES_PER_SAMPLE
from voxtral_actors.protocol.events import CONNECTION_REQUEST_ID, Error


@attrs.frozen
class Ping:
    """Asks for a `pong`."""

    session_id: str
    request_id: str


@attrs.frozen
class End:
    """Ends the connection: what is active is cancelled, then `session_end` and close 1000."""

    session_id: str
    request_id: str


@attrs.frozen
class Cancel:
    """Ends the active utterance, or the finalising one that `request_id` names."""

    session_id: str
    request_id: str
    reason: str | None = None


@attrs.frozen
class SessionUpdate:
    """Names the model; only the served one is accepted."""

    session_id: str
    request_id: str
    model: str | None = None


@attrs.frozen
class Start:
    """`input_audio_buffer.commit` without `final`: starts the utterance `request_id`."""

    session_id: str
    request_id: str


@attrs.frozen
class Finalise:
    """`input_audio_buffer.commit` with `final`: no more audio comes for `request_id`."""

    session_id: str
    request_id: str


@attrs.frozen
class Append:
    """Audio: PCM16 little endian, 16 kHz, one channel, a whole number of samples, not empty.

    A binary frame is an `Append` without ids: it belongs to the active utterance.
    """

    audio: bytes
    session_id: str | None = None
    request_id: str | None = None

    @property
    def samples(self) -> int:
        return len(self.audio) // BYTES_PER_SAMPLE


@attrs.frozen
class BadMessage:
    """A message that cannot be acted on, and the error that it earns.

    `code` is one of the error codes of `events.py`; `details` names the field, the value and what
    is allowed. The ids are the message's own where they could be read. `was_start` says that it
    would have started an utterance, whose audio then comes for nothing.
    """

    code: str
    reason_code: str
    message: str
    details: dict[str, object] = attrs.field(factory=dict)
    session_id: str | None = None
    request_id: str | None = None
    was_start: bool = False

    def error(self, session_id: str) -> Error:
        """The event; `session_id` is for a message whose own could not be read."""
        return Error(
            self.session_id or session_id,
            self.request_id or CONNECTION_REQUEST_ID,
            self.code,
            self.message,
            self.reason_code,
            self.details,
        )


@attrs.frozen
class TooBig:
    """A message over the limit: the connection is closed with 1009, as RFC 6455 has it."""

    max_bytes: int


Command: TypeAlias = Ping | End | Cancel | SessionUpdate | Start | Finalise | Append
Inbound: TypeAlias = Command | BadMessage | TooBig


def misfit(
    code: str, reason_code: str, text: str, message: Start | Append | Finalise
) -> BadMessage:
    """The error for a message whose `request_id` does not fit what is going on."""
    details: dict[str, object] = {"field": "request_id", "value": message.request_id}
    return BadMessage(code, reason_code, text, details, message.session_id, message.request_id)
