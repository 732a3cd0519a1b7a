"""Where the words of two hearings meet: an alignment of the old text's end with the new one's head.

It is the alignment of a suffix with a prefix, as it is used to join overlapping fragments of DNA:
Needleman and Wunsch's recurrence (J. Mol. Biol. 48, 1970) in which the beginning of the old text
and the end of the new one cost nothing (Gusfield, "Algorithms on Strings, Trees and Sequences",
1997, section 11.6.4). Then the old text is followed to the end of the best alignment, and the new
one from there.

Words alone do not say where one is in "no no no no", and say nothing where the engine hears
something else the second time. Positions do, roughly. So a place costs something for each word that
would be lost or doubled there by the words' positions, give or take `Timing.jitter`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

import attrs

from voxtral_actors.utterance.words import Word

MATCH: Final = 2.0
NEAR: Final = 1.0
MISS: Final = -0.5
GAP: Final = -0.5
MISPLACED: Final = -2.5
"""Worse than a match is good, or the longer one of two stretches of "no no no" would win."""
DOUBTFUL: Final = -0.6
"""A new word that is kept although the old text seems to be past it, by less than the jitter: a
little worse than to take it for another hearing of an old word."""

_STEM: Final = 4
"""Letters that two forms of one word share."""

MOST_WORDS: Final = 100
"""Of either text, its last ones: half a minute of fast speech. The work grows with the product, and
the event loop waits for it."""


@attrs.frozen
class Seam:
    """Of the old words the first `keep` stay, of the new ones the first `drop` go."""

    keep: int
    drop: int
    rest: str = ""
    """How the last old word goes on, if the new text has the whole of it."""


def find(old: Sequence[Word], fixed: int, new: Sequence[Word], jitter: int) -> Seam:
    """The best seam that keeps at least the `fixed` first words of the old text."""
    skip_old, skip_new = (max(len(text) - MOST_WORDS, 0) for text in (old, new))
    old, new, fixed = old[skip_old:], new[skip_new:], max(fixed - skip_old, 0)
    scores = _align(old, new)
    placed = _Positions(old, new, jitter).score
    places = ((i, j) for i in range(fixed, len(old) + 1) for j in range(len(new) + 1))
    i, j = max(
        places,
        key=lambda at: (scores[at[0]][at[1]] + placed(*at), at[0], -at[1]),
    )
    rest = ""
    if i == len(old) and i and j:
        diagonal = scores[i - 1][j - 1] + _alike(old, i, new, j)
        if scores[i][j] == diagonal:
            rest = _rest(old[-1].text, new[j - 1].text)
    return Seam(skip_old + i, skip_new + j, rest)


def _align(old: Sequence[Word], new: Sequence[Word]) -> list[list[float]]:
    """`scores[i][j]`: of the best alignment that ends behind `i` old and `j` new words."""
    row = [GAP * j for j in range(len(new) + 1)]
    scores = [row]
    for i in range(1, len(old) + 1):
        above, row = row, [0.0]
        for j in range(1, len(new) + 1):
            diagonal = above[j - 1] + _alike(old, i, new, j)
            row.append(max(diagonal, above[j] + GAP, row[-1] + GAP))
        scores.append(row)
    return scores


def _alike(old: Sequence[Word], i: int, new: Sequence[Word], j: int) -> float:
    one, other = old[i - 1].key, new[j - 1].key
    if one == other:
        return MATCH
    if one[:_STEM] == other[:_STEM] and min(len(one), len(other)) >= _STEM:
        return NEAR
    if (i == len(old) and _is_cut(one, other)) or (j == 1 and one.endswith(other)):
        return NEAR  # at the seam a word may have been cut
    return MISS


def _is_cut(old: str, new: str) -> bool:
    """Whether the one may be the beginning of the other."""
    return old != new and bool(old) and new.startswith(old)


def _rest(old: str, new: str) -> str:
    """What is missing of a word that may have been cut."""
    one, other = old.lstrip(), new.lstrip()
    return other[len(one) :] if other.casefold().startswith(one.casefold()) else ""


class _Positions:
    """What the positions of the words say about a place."""

    def __init__(self, old: Sequence[Word], new: Sequence[Word], jitter: int) -> None:
        self._jitter = jitter
        self._cut = [bool(old) and _is_cut(old[-1].key, word.key) for word in new]
        self._old, self._new = ([word.ends for word in text] for text in (old, new))
        self._old_late, self._new_late = ([w.ends + w.late for w in text] for text in (old, new))

    def score(self, keep: int, drop: int) -> float:
        doubled, doubtful, lost = 0, 0, drop
        if keep:
            end, late = self._old[keep - 1], self._old_late[keep - 1]
            doubled = max(bisect_right(self._new_late, end - self._jitter) - drop, 0)
            doubtful = max(bisect_right(self._new_late, end) - drop - doubled, 0)
            lost = max(drop - bisect_right(self._new, late + self._jitter), 0)
            if lost == 1 and keep == len(self._old) and self._cut[drop - 1]:
                lost = 0  # it ends later than the cut, of course
        before = len(self._old)
        if drop < len(self._new):
            before = bisect_right(self._old_late, self._new[drop] - self._jitter)
        misplaced = doubled + lost + max(before - keep, 0)
        return MISPLACED * misplaced + DOUBTFUL * doubtful
