"""Seams: what is said where one stream goes over into the next, case by case.

A text such as "one two|three" is heard in two pieces; each word has a second of audio, and its
position is its end. `test_chain.py` has the streams and the timing.
"""

from __future__ import annotations

from itertools import product

import pytest

from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.utterance.journal import Said
from voxtral_actors.utterance.stitch import Stitcher
from voxtral_actors.utterance.timing import Timing

S = SAMPLE_RATE
TIMING = Timing(delay=S // 2, lag=S)


def texts(text: str, first: float = 1) -> list[Said]:
    """Each word is heard at the next second, beginning with `first`."""
    words = text.split(" ")
    return [Said(f" {word}" if n else word, round((first + n) * S)) for n, word in enumerate(words)]


def say(stitcher: Stitcher, key: int, heard: list[Said], *, end: bool = True) -> str:
    said = [piece for one in heard for piece in stitcher.hear(key, one)]
    said += stitcher.end(key) if end else []
    return "".join(piece.text for piece in said)


class TestPause:
    def test_one_stream_is_passed_on_as_it_is(self) -> None:
        stitcher = Stitcher(TIMING)
        stitcher.after_pause(1)

        assert say(stitcher, 1, [Said("  One ", 1), Said(" two  ", 2), Said("\n", 3)]) == (
            "  One  two  \n"
        )

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ("one", "two", "one two"),
            ("one ", " two", "one two"),
            ("One.", "Two", "One. Two"),
            ("one", ", two", "one, two"),
            ("one", "one", "one one"),
            ("晴れ", "です", "晴れです"),
            ("", "two", "two"),
            ("one", "", "one"),
            ("one", "  ", "one"),
        ],
    )
    def test_the_next_stream_goes_on_behind(self, old: str, new: str, expected: str) -> None:
        stitcher = Stitcher(TIMING)
        stitcher.after_pause(1)
        stitcher.after_pause(2)
        said = say(stitcher, 1, [Said(old, S)])
        said += say(stitcher, 2, [Said(new, 2 * S)])

        assert said == expected

    def test_a_text_waits_for_the_last_words_of_the_stream_before(self) -> None:
        stitcher = Stitcher(TIMING)
        stitcher.after_pause(1)
        assert say(stitcher, 1, [Said("one", S)], end=False) == "one"
        stitcher.after_pause(2)

        assert say(stitcher, 2, [Said("three", 3 * S)], end=False) == ""
        assert stitcher.waiting
        assert say(stitcher, 1, [Said(" two", 2 * S)]) == " two three"
        assert not stitcher.waiting

    def test_space_waits_for_what_it_separates(self) -> None:
        stitcher = Stitcher(TIMING)
        stitcher.after_pause(1)
        say(stitcher, 1, [Said("one", S)])
        stitcher.after_pause(2)

        assert say(stitcher, 2, [Said(" ", 2 * S)], end=False) == ""
        assert say(stitcher, 2, [Said(", ", 2 * S)], end=False) == ", "


class TestOverlap:
    """The streams both hear the audio from second 3 to second 5."""

    def seam(self, old: str, new: str, first: float = 4) -> str:
        stitcher = Stitcher(TIMING)
        stitcher.after_pause(1)
        said = say(stitcher, 1, texts(old)[:2], end=False)
        stitcher.overlapping(2, 3 * S, 5 * S)
        said += say(stitcher, 1, texts(old)[2:])
        return said + say(stitcher, 2, texts(new, first))

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("one two three four five", "four five six seven"),
            ("one two three four fi", "four five six seven"),
            ("one two three four nonsense", "four five six seven"),
            ("one two three four five", "ur five six seven"),
            ("one two three four five", "Four, five six seven"),
            ("one two three", "four five six seven"),
            ("one two three four", "three four five six seven"),
        ],
    )
    def test_no_word_is_lost_or_doubled(self, old: str, new: str) -> None:
        first = 3 if new.startswith("three") else 4

        assert self.seam(old, new, first).replace(",", "").casefold() == (
            "one two three four five six seven"
        )

    def test_words_that_are_really_said_twice(self) -> None:
        assert self.seam("one no no no no", "no no no no six") == "one no no no no no no six"

    def test_the_new_stream_heard_nothing(self) -> None:
        assert self.seam("one two three four five", "") == "one two three four five"

    def test_the_old_stream_heard_nothing_there(self) -> None:
        assert self.seam("one two", "four five") == "one two four five"

    def test_nothing_is_alike(self) -> None:
        """Then the positions say where to go over, and each moment has one of the two texts."""
        assert self.seam("one two three vier fuenf", "quatre cinq six") in (
            "one two three quatre cinq six",
            "one two three vier cinq six",
            "one two three vier fuenf six",
        )


class TestAgain:
    """What was said is heard again, and goes on."""

    def again(self, said: list[Said], heard: list[Said]) -> str:
        stitcher = Stitcher(TIMING)
        stitcher.again(1, said)
        return say(stitcher, 1, heard)

    @pytest.mark.parametrize(
        ("said", "heard", "expected"),
        [
            ("one two three", "one two three four", " four"),
            ("one two three", "one two three", ""),
            ("one two thr", "one two three four", "ee four"),
            ("one two three", "One, two, three, four", ", four"),
            ("one two three.", "one two three four", " four"),
            ("one too three", "one two three four", " four"),
            ("one two tree", "one two three four", " four"),
            ("un deux trois", "one two three four", " four"),
            ("one two three", "one three four", " four"),
            ("one two", "one two three four five six", " three four five six"),
            ("one two three", "", ""),
        ],
    )
    def test_only_how_it_goes_on_is_said(self, said: str, heard: str, expected: str) -> None:
        # A word less is heard in the same time.
        late = 1 + len(said.split()) - len(heard.removesuffix(" four").split())
        first = late if heard == "one three four" else 1

        assert self.again(texts(said), texts(heard, first)) == expected

    def test_without_spaces(self) -> None:
        said = [Said(letter, n * S) for n, letter in enumerate("今日は晴", 1)]
        heard = [Said(letter, n * S) for n, letter in enumerate("今日は晴れです。", 1)]

        assert self.again(said, heard) == "れです。"

    def test_words_that_are_really_said_twice(self) -> None:
        assert self.again(texts("no no no"), texts("no no no no no no")) == " no no no"

    def test_whoever_has_said_nothing_says_everything(self) -> None:
        assert self.again([], texts("one two")) == "one two"

    def test_nothing_is_said_before_the_place_is_known(self) -> None:
        stitcher = Stitcher(TIMING)
        stitcher.again(1, texts("one two three"))

        assert say(stitcher, 1, texts("one two three")[:2], end=False) == ""
        assert stitcher.waiting

    @pytest.mark.parametrize(("cut", "size"), list(product(range(1, 13), (1, 2, 5))))
    def test_a_text_may_be_cut_anywhere(self, cut: int, size: int) -> None:
        """Twelve letters in twelve steps: lost after any of them, heard again in any pieces."""
        text = "one two six."
        step = S // 10
        said = [Said(text[n], (n + 1) * step) for n in range(cut)]
        heard = [
            Said(text[n : n + size], min(n + size, len(text)) * step)
            for n in range(0, len(text), size)
        ]

        assert text[:cut] + self.again(said, heard) == text
