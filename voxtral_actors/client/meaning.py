"""What an event of the server means for its utterance: a pure function, so that it can be tested.

An utterance may end for a reason of its own, or because its connection is about to end. The server
tells the latter in three ways: it refuses to start (`shutting_down`), it cancels with the slug of a
Close, or it finalises what it has (`done`, before anybody asked or with audio missing). None of
them is an end where another connection can have the utterance.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

from voxtral_actors.client import limits
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.events import Cancelled, Delta, Done, Error

Outcome: TypeAlias = Done | Cancelled | Error

_MESSAGE_ERRORS = frozenset({"invalid_message", "invalid_payload", "rate_limited"})
_LEAVING = frozenset({
    close.spec.slug for close in (Close.DRAINING, Close.MAX_DURATION, Close.BUG)
})  # fmt: skip


class Meaning(enum.Enum):
    TEXT = enum.auto()
    CANCEL_REFUSED = enum.auto()
    NOT_UNDERSTOOD = enum.auto()
    """One message was not acted on. It was audio, a start or a finish, so the text could only be
    wrong: the utterance is over, and the server has to be told."""
    PART = enum.auto()
    """The server has finalised what it took, and is about to close."""
    LEAVING = enum.auto()
    """The server has nothing of it any more, and is about to close."""
    END = enum.auto()


def meaning(
    event: Delta | Outcome, *, resumable: bool, cancelling: bool, finished: bool, posted: int
) -> Meaning:
    """`posted`: bytes that were sent to this connection; `finished`: no more of it comes."""
    match event:
        case Delta():
            return Meaning.TEXT
        case Error(reason_code="cancel_rate_limited"):
            return Meaning.CANCEL_REFUSED
        case Error(code=code) if code in _MESSAGE_ERRORS:
            return Meaning.NOT_UNDERSTOOD
        case Error(code=Close.DRAINING.spec.slug) if resumable:
            return Meaning.LEAVING
        case Cancelled(reason=reason) if resumable and not cancelling and reason in _LEAVING:
            return Meaning.LEAVING
        case Done() if resumable and (
            not finished or taken_bytes(event) + limits.MIN_FRAME_BYTES <= posted
        ):
            return Meaning.PART
        case _:
            return Meaning.END


def taken_bytes(done: Done) -> int:
    """The audio that the server took, by its own account."""
    return round(done.usage.audio_seconds * SAMPLE_RATE) * BYTES_PER_SAMPLE
