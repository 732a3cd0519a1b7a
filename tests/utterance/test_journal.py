"""The journal: what is kept, what is forgotten, and what is known about it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.utterance.journal import (
    ROUGH_AFTER,
    ROUGH_KEEP,
    Gap,
    Journal,
    JournalStatistics,
    Replay,
    Said,
)
from voxtral_actors.utterance.timing import GRID, SLACK, Timing

S = SAMPLE_RATE
TIMING = Timing(delay=S // 2, lag=S)
CAP = 60 * S


def audio(seconds: float) -> bytes:
    return bytes(round(seconds * S) * 2)


def journal(seconds: float = 10, cap: int = CAP) -> Journal:
    made = Journal(cap, TIMING)
    made.append(audio(seconds))
    return made


def test_audio_is_kept_as_it_came() -> None:
    made = Journal(CAP, TIMING)
    for byte in range(10):
        made.append(bytes([byte, 0]))

    assert made.audio(0, 10)[::2] == bytes(range(10))
    assert made.audio(3, 5)[::2] == bytes([3, 4])
    assert made.audio(5, 5) == b""


def test_what_is_settled_is_forgotten_up_to_the_last_pause() -> None:
    made = journal()
    for at in (2 * S, 4 * S, 6 * S):
        made.pause(at)
    made.settle(5 * S)

    assert made.replay() == Replay(4 * S, ())
    assert made.statistics() == JournalStatistics(held=6 * S, cap=CAP, settled=4 * S, forgotten=0)


def test_what_may_still_get_its_text_is_kept() -> None:
    made = journal()
    made.pause(4 * S)
    made.settle(4 * S + TIMING.lag - 1)
    assert made.start == 0
    made.settle(4 * S + TIMING.lag)
    assert made.start == 4 * S


def test_what_is_needed_otherwise_is_kept() -> None:
    made = journal()
    made.pause(2 * S)
    made.pause(4 * S)
    made.settle(9 * S, keep=3 * S)

    assert made.start == 2 * S


def test_text_is_known_as_long_as_its_audio() -> None:
    made = journal()
    words = [Said("one", S), Said(" two", 2 * S), Said(" late", 4 * S + SLACK), Said(" six", 6 * S)]
    for word in words:
        made.say(word)
    made.pause(4 * S)
    assert made.replay() == Replay(0, tuple(words))
    made.settle(9 * S)

    assert made.replay() == Replay(4 * S, (words[-1],))


def test_without_a_pause_the_end_of_what_is_settled_is_kept() -> None:
    made = journal(50)
    made.settle(ROUGH_AFTER + TIMING.lag - 1)
    assert made.start == 0
    made.settle(ROUGH_AFTER + TIMING.lag)

    assert made.start == (ROUGH_AFTER - ROUGH_KEEP) // GRID * GRID


class TestCap:
    def test_p10_what_is_forgotten_for_the_cap_is_told_and_counted(self) -> None:
        made = journal(10, cap=10 * S)

        assert made.append(audio(2)) == 2 * S
        assert made.append(audio(1)) == S
        assert made.replay() == Gap(0, 3 * S)
        assert made.statistics() == JournalStatistics(10 * S, 10 * S, 0, 3 * S)

    def test_p10_a_gap_is_over_when_its_audio_is_settled(self) -> None:
        made = journal(10, cap=10 * S)
        made.append(audio(2))
        made.settle(2 * S + TIMING.lag - 1)
        assert made.replay() == Gap(0, 2 * S)
        made.settle(2 * S + TIMING.lag)

        assert made.replay() == Replay(2 * S, ())

    def test_p10_what_was_settled_before_is_no_gap(self) -> None:
        made = journal(10, cap=10 * S)
        made.pause(5 * S)
        made.settle(9 * S)

        assert made.append(audio(5)) == 0
        assert made.replay() == Replay(5 * S, ())

    @given(st.lists(st.tuples(st.integers(0, 5 * S), st.integers(0, 60 * S), st.booleans())))
    def test_p10_it_is_bounded_whatever_comes(self, steps: list[tuple[int, int, bool]]) -> None:
        made = Journal(10 * S, TIMING)
        total = 0
        for samples, consumed, pause in steps:
            made.append(bytes(2 * samples))
            total += samples
            if pause:
                made.pause(made.end)
            made.settle(min(consumed, made.end))
            figures = made.statistics()

            assert made.end == total
            assert figures.held <= 10 * S
            assert figures.held + figures.settled + figures.forgotten == total
            assert len(made.audio(made.start, made.end)) == 2 * figures.held
