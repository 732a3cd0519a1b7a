"""The rolling window against a reference that remembers everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxtral_actors.protocol.rate import Window

# Times are multiples of 1/8: sums of them are exact, so that "exactly 60 s ago" is a case.
moments = st.lists(st.integers(0, 80), max_size=60).map(lambda gaps: [gap / 8 for gap in gaps])


def reference(times: list[float], limit: int, seconds: float) -> list[float | None]:
    """What a window answers at these times: admitted is what has fewer than `limit` before it."""
    admitted: list[float] = []
    answers: list[float | None] = []
    for now in times:
        recent = [time for time in admitted if now - time < seconds]
        if limit and len(recent) >= limit:
            answers.append(recent[-limit] + seconds - now)
        else:
            admitted.append(now)
            answers.append(None)
    return answers


def running(gaps: list[float]) -> list[float]:
    now = 0.0
    return [now := now + gap for gap in gaps]


@given(moments, st.integers(0, 5), st.sampled_from((0.125, 1.0, 7.5, 60.0)))
def test_a_window_is_exact(gaps: list[float], limit: int, seconds: float) -> None:
    times = running(gaps)
    window = Window(limit, seconds)

    assert [window.admit(now) for now in times] == reference(times, limit, seconds)


@given(moments, st.integers(1, 5), st.sampled_from((1.0, 7.5)))
def test_no_span_holds_more_than_the_limit(gaps: list[float], limit: int, seconds: float) -> None:
    times = running(gaps)
    window = Window(limit, seconds)
    admitted = [now for now in times if window.admit(now) is None]

    for start in admitted:
        assert sum(start <= time < start + seconds for time in admitted) <= limit


@given(moments, st.integers(1, 5))
def test_who_waits_as_long_as_told_is_let_in_and_not_before(gaps: list[float], limit: int) -> None:
    window = Window(limit, 7.5)
    for now in running(gaps):
        if (wait := window.admit(now)) is not None:
            assert 0 < wait <= 7.5
            assert window.admit(now + wait - 0.125) is not None or wait < 0.125
            assert window.admit(now + wait) is None
            return


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_limit_of_0_admits_everything(seconds: float) -> None:
    window = Window(0, seconds)

    assert {window.admit(0.0) for _ in range(10_000)} == {None}


def test_refusals_do_not_prolong_the_wait() -> None:
    window = Window(1, 10.0)
    window.admit(0.0)

    assert [window.admit(now) for now in (1.0, 5.0, 9.5)] == [9.0, 5.0, 0.5]
    assert window.admit(10.0) is None
