"""The journal of one utterance: the audio that was accepted and is not settled yet, and what was
said about it.

When an engine stream is lost, the audio from the journal's start is heard again by another one, and
what had been said about that audio is known, so that nothing is said twice and nothing is missing.
Audio is *settled* once all of its text has been said: nobody needs it any more, and it is forgotten
up to the last pause in the settled part. Where no pause comes for long it is forgotten up to some
moment in the middle of speech; `stitch` copes with a word that is cut there.

So the journal holds what waits for the engine, what the engine's delay covers, and a phrase. It has
a cap all the same. Audio beyond it is taken, because to refuse it is not the journal's business,
but what is oldest is forgotten unsettled: then there is a *gap*, `append` says so, and a stream
that is lost before the gap is settled cannot be replayed: `replay` says so.

Positions are samples from the start of the utterance.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.utterance.tape import Tape
from voxtral_actors.utterance.timing import GRID, SLACK, Timing

ROUGH_AFTER: Final = 20 * SAMPLE_RATE
"""So much settled audio without a pause is too much to keep and to hear again: people pause every
few seconds, so this is a loud room or music."""

ROUGH_KEEP: Final = 5 * SAMPLE_RATE
"""What is kept of it, so that there are words enough to find one's place by."""


@attrs.frozen
class Said:
    """Text that was said, about audio before `at`."""

    text: str
    at: int
    late: int = 0
    """It may be about audio later by this much: at the end of a stream the words come all at once,
    and no position tells them apart."""


@attrs.frozen
class Replay:
    """Hear the audio from `at` on again; `said` is what was said about it, oldest first."""

    at: int
    said: tuple[Said, ...]


@attrs.frozen
class Gap:
    """There is no replay: audio `begins` to `ends` was forgotten unsettled."""

    begins: int
    ends: int


@attrs.frozen
class JournalStatistics:
    """A moment of the journal, in samples, and what became of the audio before."""

    held: int
    cap: int
    settled: int
    """Forgotten because it was settled."""
    forgotten: int
    """Forgotten because of the cap."""


class Journal:
    """`cap` is in samples; the timing is that of the engine which hears the audio."""

    def __init__(self, cap: int, timing: Timing) -> None:
        self._cap = cap
        self._timing = timing
        self._tape = Tape()
        self._settled = self._forgotten = 0
        self._gap: Gap | None = None
        self._pauses: deque[int] = deque()
        self._said: deque[Said] = deque()

    @property
    def start(self) -> int:
        """Where the audio that is here begins, and a replay would."""
        return self._tape.begins

    @property
    def end(self) -> int:
        """How much audio the utterance has."""
        return self._tape.ends

    @property
    def said_until(self) -> int:
        """All text about the audio before was said."""
        return self._said[-1].at if self._said else self.start

    def statistics(self) -> JournalStatistics:
        return JournalStatistics(self.end - self.start, self._cap, self._settled, self._forgotten)

    def append(self, pcm: bytes) -> int:
        """Take audio; returns how many samples had to be forgotten for it, as a rule none."""
        self._tape.append(pcm)
        too_many = max(self.end - self.start - self._cap, 0)
        if too_many:
            begins = self._gap.begins if self._gap else self.start
            self._forget(self.start + too_many)
            self._forgotten += too_many
            self._gap = Gap(begins, self.start)
        return too_many

    def audio(self, begins: int, ends: int) -> bytes:
        """A part of what is here."""
        return self._tape.part(begins, ends)

    def pause(self, at: int) -> None:
        """Nobody speaks here: a good place to begin a replay."""
        self._pauses.append(at)

    def say(self, said: Said) -> None:
        """Something was said, about audio after that of what was said last."""
        self._said.append(said)

    def settle(self, consumed: int, keep: int | None = None) -> None:
        """The engine has used `consumed` samples and all its text about them was said, except about
        its last ones. What lies behind `keep` is needed all the same."""
        settled = consumed - self._timing.lag
        if self._gap and settled >= self._gap.ends:
            self._gap = None
        limit = settled if keep is None else min(settled, keep)
        pause = None
        while self._pauses and self._pauses[0] <= limit:
            pause = self._pauses.popleft()
        if pause is None and limit - self.start >= ROUGH_AFTER:
            pause = (limit - ROUGH_KEEP) // GRID * GRID
        if pause is not None and pause > self.start:
            self._settled += pause - self.start
            self._forget(pause)

    def replay(self) -> Replay | Gap:
        """How the audio from the journal's start on is heard again."""
        return self._gap or Replay(self.start, tuple(self._said))

    def _forget(self, at: int) -> None:
        self._tape.forget(at)
        while self._pauses and self._pauses[0] <= at:
            self._pauses.popleft()
        # The last word before a pause may have its text after it.
        while self._said and self._said[0].at <= at + SLACK:
            self._said.popleft()
