"""What can go wrong, as the caller sees it. None of these is ever wrapped in an exception group.

    ClientError
     +- ConnectFailed       no session: name, TCP, TLS, HTTP or a deadline
     +- ConnectionRefused   the server answered, and said no
     +- ServerClosed        the session is over: the server or the network ended it
     +- NoAnswer            a deadline passed; the session goes on
     +- RequestRefused      one request (`update`, `cancel`) was refused; the session goes on
     +- UtteranceEnded      the utterance takes no more audio; the session goes on
         +- UtteranceFailed      it ended in an error
         +- UtteranceCancelled   it was cancelled, or another one took its place

`retry` says whether the same call can succeed later without any change, and `retry_after` how many
seconds the server asks to wait. What the *caller* closed raises `trio.ClosedResourceError`.
"""

from __future__ import annotations

from voxtral_actors.protocol.closing import Close, CloseSpec
from voxtral_actors.protocol.events import Cancelled, Done, Error

_RETRY_BY_DEFAULT = frozenset({1001, 1005, 1006, 1012, 1013, 1014})
"""Codes outside the server's own table that say nothing against trying again: the peer went away,
gave no code, vanished, restarts, is busy, or a gateway failed."""


class ClientError(Exception):
    """Every error that this package raises about the other side."""

    retry: bool = False
    retry_after: float | None = None


class ConnectFailed(ClientError):
    """No session came about, and no `error` event says why. `status` is an HTTP status, if any."""

    def __init__(self, message: str, *, retry: bool = True, status: int | None = None) -> None:
        super().__init__(message)
        self.retry = retry
        self.status = status


class ConnectionRefused(ClientError):
    """The server said no: `code` is its error code, `close_code` that of its Close frame."""

    def __init__(
        self, code: str, message: str, close_code: int, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.close_code = close_code
        row = close_row(close_code, code)
        self.retry = may_retry(close_code, row)
        self.retry_after = retry_after if retry_after is not None else _advice(row)


class ServerClosed(ClientError):
    """The connection is gone. 1006 means that there was no Close frame."""

    def __init__(
        self, code: int, reason: str, message: str = "", retry_after: float | None = None
    ) -> None:
        row = close_row(code, reason)
        meaning = message or (row.meaning if row else "the connection was lost")
        super().__init__(f"closed with {code} {reason}: {meaning}".replace(" :", ":"))
        self.code = code
        self.reason = reason
        self.retry = may_retry(code, row)
        self.retry_after = retry_after if retry_after is not None else _advice(row)


class NoAnswer(ClientError):
    """The server did not answer one request in time."""

    retry = True


class RequestRefused(ClientError):
    """The server refused one request."""

    def __init__(self, code: str, reason_code: str, message: str) -> None:
        super().__init__(f"{code} ({reason_code}): {message}")
        self.code = code
        self.reason_code = reason_code
        self.message = message
        self.retry = code == "rate_limited"


class UtteranceEnded(ClientError):
    """Raised as it is when the server finalised the utterance itself, as it does on a drain."""

    def __init__(self, request_id: str, why: str = "finalised by the server") -> None:
        super().__init__(f"utterance {request_id}: {why}")
        self.request_id = request_id


class UtteranceFailed(UtteranceEnded):
    """The utterance ended in an `error`."""

    def __init__(self, request_id: str, code: str, reason_code: str, message: str) -> None:
        super().__init__(request_id, f"{code} ({reason_code}): {message}")
        self.code = code
        self.reason_code = reason_code
        self.message = message
        self.retry = code not in {"invalid_message", "invalid_payload"}


class UtteranceCancelled(UtteranceEnded):
    """The utterance ended in `cancelled`; `reason` is `superseded` if another one was started."""

    def __init__(self, request_id: str, reason: str) -> None:
        super().__init__(request_id, f"cancelled ({reason})")
        self.reason = reason


def ending_error(request_id: str, outcome: Done | Cancelled | Error | None) -> UtteranceEnded:
    """Why an utterance takes no more audio, by its last event."""
    match outcome:
        case Error() as error:
            return UtteranceFailed(request_id, error.code, error.reason_code, error.message)
        case Cancelled(reason=reason):
            return UtteranceCancelled(request_id, reason)
        case _:
            return UtteranceEnded(request_id)


def close_row(code: int, slug: str) -> CloseSpec | None:
    """The row of the close table for a code; codes with several rows are told apart by slug."""
    rows = [close.spec for close in Close if close.spec.code == code]
    return next((row for row in rows if row.slug == slug), rows[0] if rows else None)


def may_retry(code: int, row: CloseSpec | None) -> bool:
    return row.retry if row is not None else code in _RETRY_BY_DEFAULT


def _advice(row: CloseSpec | None) -> float | None:
    return row.retry_after_s if row is not None else None
