"""One text from the texts of many engine streams: nothing lost, nothing twice, nothing taken back.

The streams of an utterance follow one another and are heard at the same time for a while: the next
one begins before the last words of the one before are out. What a stream says waits until those
before it have ended. How it goes on then depends on how it began:

- `after_pause`: behind the text before, with the right space between them.
- `overlapping`: both streams hear some words. What the old one says of those waits too, and `seam`
  finds where to go over. The old stream's last word may be cut by its end and the new one's first
  by its beginning, so neither is trusted with it.
- `again`: all other streams are forgotten. The new one hears audio about which much was said
  already; what it says is aligned with that, and only how it goes on is said. If it hears something
  else the second time, what was said stays.

Everything that `hear` and `end` return is said at once and for ever: joined it is the final text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from voxtral_actors.utterance import seam
from voxtral_actors.utterance.journal import Said
from voxtral_actors.utterance.timing import SLACK, Timing
from voxtral_actors.utterance.words import Word, key_of, spaced, split

RECENT: Final = 64
"""Texts that are remembered after they were said, for the words before an overlap: five seconds of
one token each step."""


@attrs.define
class _Part:
    """What one stream says. `old` is the text that its head has to be aligned with, of which the
    first `said` characters were said; it is about audio before `until`."""

    begins: int = 0
    until: int | None = None
    old: Sequence[Said] = ()
    said: int = 0
    held: list[Said] = attrs.field(factory=list)
    position: int = 0
    fresh: bool = True
    """The space before its next text has to be looked at."""
    over: bool = False


class Stitcher:
    """The text of one utterance. Streams are known by a key; positions are covered audio (`Timing`)
    from the start of the utterance."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._parts: dict[int, _Part] = {}
        self._recent: deque[Said] = deque(maxlen=RECENT)
        self._last = ""  # the character that was said last

    @property
    def waiting(self) -> bool:
        """Whether there is text, or may be, that was not said and is not in the position either."""
        for part in self._parts.values():  # noqa: SIM110 - `any` costs more, and this is asked often
            if part.held or part.old:
                return True
        return False

    def after_pause(self, key: int) -> None:
        """A stream begins, the first one or one that shares no words with that before it."""
        self._parts[key] = _Part()

    def overlapping(self, key: int, begins: int, until: int) -> None:
        """A stream begins that hears what the last one hears between these positions."""
        self._parts[key] = _Part(begins, until)

    def again(self, key: int, said: Sequence[Said]) -> None:
        """A stream begins that hears what `said` is about, and takes the place of all others."""
        self._parts.clear()
        self._last = said[-1].text[-1] if said else self._last
        part = self._parts[key] = _Part()
        self._align(part, said, _length(said))

    def hear(self, key: int, heard: Said) -> list[Said]:
        """What can be said now that a stream has covered the audio before `heard.at`."""
        part = self._parts[key]
        part.position = heard.at
        if heard.text:
            part.held.append(heard)
        return self._go_on()

    def end(self, key: int) -> list[Said]:
        """The same, now that a stream has said all that it has to say."""
        self._parts[key].over = True
        return self._go_on()

    def _go_on(self) -> list[Said]:
        said: list[Said] = []
        while self._parts:
            key, part = next(iter(self._parts.items()))
            following = next((other for other in self._parts.values() if other is not part), None)
            if part.old and self._is_place_known(part):
                said += self._find_place(part)
            if not part.old:
                said += self._release(part, following)
            if not part.over:
                break
            del self._parts[key]
            if following is not None and following.until is not None:
                self._align(following, [*self._recent, *part.held], _length(self._recent))
        return said

    @staticmethod
    def _align(part: _Part, old: Sequence[Said], said: int) -> None:
        if any(key_of(piece.text) for piece in old):
            part.old, part.said = old, said
            part.until = old[-1].at + old[-1].late if part.until is None else part.until
        else:
            part.until = None

    def _is_place_known(self, part: _Part) -> bool:
        """Whether the new text has, complete, all words of the old one that it will ever have."""
        assert part.until is not None  # noqa: S101 - set together with `old`
        if part.over:
            return True
        beyond = part.until + self._timing.jitter
        if part.position <= beyond:
            return False
        last = part.held[-1].at if part.held else 0
        if part.position >= max(part.until + self._timing.spread, last) + SLACK:
            return True
        return last > beyond and any(word.begins > beyond for word in self._whole(part))

    @staticmethod
    def _whole(part: _Part) -> list[Word]:
        """The words that are complete: tokens of one word follow one another closely."""
        new = split(part.held)
        whole = part.over or not new or part.position >= part.held[-1].at + SLACK
        return new if whole else new[:-1]

    def _find_place(self, part: _Part) -> list[Said]:
        """Say what is left of the old text; what stays of the new one is how it goes on."""
        assert part.until is not None  # noqa: S101 - set together with `old`
        horizon = part.until + self._timing.jitter + self._timing.spread + SLACK
        old = split(part.old)
        again = [word for word in self._whole(part) if word.begins <= horizon]
        fixed = sum(word.first < part.said for word in old)
        place = seam.find(old, fixed, again, self._timing.jitter)
        kept = old[place.keep - 1].end if place.keep else 0
        gone = again[place.drop - 1].end if place.drop else 0
        said = _cut(part.old, part.said, kept)
        if place.rest:
            said.append(Said(place.rest, again[place.drop - 1].ends))
        part.old, part.until, part.fresh = (), None, True
        part.held = _cut(part.held, gone, _length(part.held))
        return self._remember(said)

    def _release(self, part: _Part, following: _Part | None) -> list[Said]:
        """What of a part can be said: all but what may be found in the next one as well."""
        limit = None if following is None or following.until is None else following.begins
        ready = [piece for piece in part.held if limit is None or piece.at <= limit]
        if part.fresh and self._last:
            text = "".join(piece.text for piece in ready)
            if not (bare := text.lstrip()):
                return []  # space, and what it separates is not known yet
            space = spaced(self._last, text).removesuffix(bare)
            first, *rest = _cut(ready, len(text) - len(bare), len(text))
            said = [attrs.evolve(first, text=space + first.text), *rest]
        else:
            said = ready
        del part.held[: len(ready)]
        part.fresh = part.fresh and not said
        return self._remember(said)

    def _remember(self, said: list[Said]) -> list[Said]:
        self._recent.extend(said)
        self._last = said[-1].text[-1] if said else self._last
        return said


def _length(texts: Iterable[Said]) -> int:
    return sum(len(piece.text) for piece in texts)


def _cut(texts: Iterable[Said], begins: int, ends: int) -> list[Said]:
    """What lies between two offsets into the joined texts."""
    found: list[Said] = []
    offset = 0
    for piece in texts:
        part = piece.text[max(begins - offset, 0) : max(ends - offset, 0)]
        if part:
            found.append(attrs.evolve(piece, text=part))
        offset += len(piece.text)
    return found
