"""The table of closes: what a client, a proxy and the WebSocket standard rely on."""

from __future__ import annotations

import pytest

from voxtral_actors.limits import MAX_CLOSE_REASON_BYTES
from voxtral_actors.protocol.closing import Close, farewell
from voxtral_actors.protocol.events import ERROR_CODES, Error, SessionEnd

# code, slug, error before it, retry, advice when
TABLE = {
    Close.NORMAL: (1000, "end", None, False, False),
    Close.BAD_KEY: (1008, "authentication_failed", "authentication_failed", False, False),
    Close.BAD_ORIGIN: (1008, "origin_not_allowed", "origin_not_allowed", False, False),
    Close.TOO_BIG: (1009, "message_too_big", None, False, False),
    Close.BUG: (1011, "internal_error", "internal_error", True, False),
    Close.DRAINING: (1012, "shutting_down", "shutting_down", True, True),
    Close.AT_CAPACITY: (1013, "server_at_capacity", "server_at_capacity", True, True),
    Close.ENGINE_UNAVAILABLE: (1013, "engine_unavailable", "engine_unavailable", True, True),
    Close.IDLE: (4000, "idle_timeout", None, True, False),
    Close.MAX_DURATION: (4003, "max_duration", None, True, False),
    Close.SLOW_CONSUMER: (4008, "slow_consumer", None, True, False),
    Close.TOO_MANY_BAD: (4009, "too_many_bad_messages", "invalid_message", False, False),
}


def test_p17_the_table() -> None:
    actual = {
        close: (
            close.spec.code,
            close.spec.slug,
            close.spec.error,
            close.spec.retry,
            close.spec.retry_after_s is not None,
        )
        for close in Close
    }

    assert actual == TABLE
    assert len(Close.__members__) == len(Close), "two closes have the same row"


@pytest.mark.parametrize("close", Close)
def test_p17_a_close_fits_its_frame(close: Close) -> None:
    """RFC 6455: the codes that an endpoint may send, and a reason of at most 123 bytes."""
    spec = close.spec

    assert spec.code in {1000, 1008, 1009, 1011, 1012, 1013} or 4000 <= spec.code <= 4999
    assert 0 < len(spec.slug.encode()) <= MAX_CLOSE_REASON_BYTES
    assert spec.slug.replace("_", "").isalpha()
    assert spec.slug.islower()
    assert spec.meaning


def test_p17_a_slug_names_one_close() -> None:
    slugs = [close.spec.slug for close in Close]

    assert len(set(slugs)) == len(slugs)


@pytest.mark.parametrize("close", Close)
def test_p17_advice_when_to_retry_is_for_who_may_retry(close: Close) -> None:
    spec = close.spec

    assert spec.error is None or spec.error in ERROR_CODES
    assert spec.retry_after_s is None or (spec.retry and spec.retry_after_s > 0)


@pytest.mark.parametrize("close", Close)
def test_p17_the_last_event_before_a_close_says_the_same(close: Close) -> None:
    spec = close.spec
    details: dict[str, object] = {"retry": spec.retry}
    if spec.retry_after_s is not None:
        details["retry_after_s"] = spec.retry_after_s
    ids = "sess-1", "connection"

    assert farewell(*ids, close) == (
        SessionEnd(*ids, spec.slug)
        if spec.error is None
        else Error(*ids, spec.error, spec.meaning, spec.slug, details)
    )
