"""Text as words, so that one's place in it can be found, and the space between two texts.

In languages that are written without spaces each character is a word here: what counts is that two
hearings of the same audio are cut in the same way, not that a linguist would agree.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import attrs

from voxtral_actors.utterance.journal import Said

# Thai and Lao, Myanmar, Khmer; Japanese and Chinese; halfwidth Katakana; rare Chinese.
_SPACELESS: Final = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_WORD: Final = re.compile(rf"\s*(?:[{_SPACELESS}][^\w\s]*|[^\s{_SPACELESS}]+)")
# The same with their punctuation, which is as wide as a letter and a space.
_NO_SPACE: Final = re.compile(rf"[{_SPACELESS}\u3000-\u303f\uff01-\uff65]")

_CLINGS_LEFT: Final = frozenset(",.\N{HORIZONTAL ELLIPSIS})]}\N{ARABIC COMMA}\N{DEVANAGARI DANDA}")
_CLINGS_AS_SAID: Final = frozenset("?!:;%\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}")
"""In French a space is before these, elsewhere none: the engine knows."""
_CLINGS_RIGHT: Final = frozenset(
    "([{\N{INVERTED QUESTION MARK}\N{INVERTED EXCLAMATION MARK}"
    "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}\N{LEFT DOUBLE QUOTATION MARK}"
)


@attrs.frozen
class Word:
    """A word as it was written, with the space before it and the punctuation behind it."""

    text: str
    key: str
    """What is compared: letters and digits, without case."""
    begins: int
    """The position of the text that it begins in; `ends` of the one that its last letter is in."""
    ends: int
    late: int
    end: int
    """Characters up to its end, from the beginning of the texts."""

    @property
    def first(self) -> int:
        """The same up to its first letter."""
        return self.end - len(self.text.lstrip())


def split(texts: Sequence[Said]) -> list[Word]:
    """The words of texts that follow one another and may be cut anywhere. Joined they are all."""
    text = "".join(piece.text for piece in texts)
    ends = list(accumulate(len(piece.text) for piece in texts))
    spans: list[tuple[int, int]] = []
    for match in _WORD.finditer(text):
        begins, end = match.span()
        if spans and not (key_of(match[0]) and key_of(text[slice(*spans[-1])])):
            begins = spans.pop()[0]  # punctuation alone is no word
        spans.append((begins, end))
    if spans:
        spans[-1] = spans[-1][0], len(text)

    def around(offset: int) -> Said:
        return texts[bisect_right(ends, offset)]

    found: list[Word] = []
    for begins, end in spans:
        word = text[begins:end]
        first = begins + len(word) - len(word.lstrip())
        last = around(begins + len(word.rstrip()) - 1)
        found.append(Word(word, key_of(word), around(first).at, last.at, last.late, end))
    return found


def key_of(word: str) -> str:
    """A word without case and punctuation; empty if there is nothing else."""
    folded = unicodedata.normalize("NFKC", word).casefold()
    return "".join(c for c in folded if c.isalnum() or unicodedata.category(c)[0] == "M")


def spaced(before: str, after: str) -> str:
    """`after`, with the space that it needs in front when it is put behind `before`.

    Nothing but that space is changed. Both have something other than space in them.
    """
    bare = after.lstrip()
    last, first = before[-1], bare[0]
    if last.isspace() or first in _CLINGS_LEFT or last in _CLINGS_RIGHT:
        return bare
    no_space = [side for side in (last, first) if _NO_SPACE.match(side)]
    if len(no_space) == 2:
        return bare
    if no_space or first in _CLINGS_AS_SAID:
        return after
    return after if after != bare else f" {bare}"
