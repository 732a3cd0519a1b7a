"""How much audio of one stream waits for the engine: what pauses the reader and betrays a stall.

A stream is *behind* while more than a little audio waits, or too much, or its tail is due. An
engine that is behind and makes no progress for `patience` seconds has stalled; `deadline` is that
moment. Audio is counted in samples, time in seconds of trio's clock.
"""

from __future__ import annotations

import math

import attrs
import trio

from voxtral_actors.limits import SAMPLE_RATE, STALL_MIN_PENDING_S


@attrs.frozen
class BacklogStatistics:
    """A moment of one stream's audio, in seconds of it."""

    fed_s: float
    """Handed to the engine."""
    used_s: float
    """What the engine says that it has used."""
    behind_since: float
    """On trio's clock: since when the engine is behind without progress; `inf` while it is not."""

    @property
    def waiting_s(self) -> float:
        return self.fed_s - self.used_s


_MIN_PENDING = int(STALL_MIN_PENDING_S * SAMPLE_RATE)


class Backlog:
    """`limit` is in seconds of audio; `patience` in seconds, 0 for no end of it."""

    def __init__(self, limit: float, patience: float) -> None:
        self._limit = int(limit * SAMPLE_RATE)
        self._patience = patience or math.inf
        self._fed = self._consumed = 0
        self._finishing = False
        self._over = False
        self._behind_since = math.inf

    @property
    def full(self) -> bool:
        return not self._over and self._fed - self._consumed > self._limit

    @property
    def fed(self) -> int:
        return self._fed

    @property
    def finishing(self) -> bool:
        """The engine was told that the audio is complete."""
        return self._finishing

    @property
    def waiting_s(self) -> float:
        """Seconds of audio that wait."""
        return (self._fed - self._consumed) / SAMPLE_RATE

    @property
    def deadline(self) -> float:
        """When the engine has stalled unless it makes progress; `inf` while it is not behind."""
        return self._behind_since + self._patience

    def statistics(self) -> BacklogStatistics:
        fed, used = self._fed / SAMPLE_RATE, self._consumed / SAMPLE_RATE
        return BacklogStatistics(fed, used, self._behind_since)

    def feed(self, samples: int) -> None:
        self._fed += samples
        self._look(progress=False)

    def finish(self) -> None:
        self._finishing = True
        self._look(progress=False)

    def progress(self, consumed: int) -> None:
        """The engine says how far it is. Saying so again is no progress, and nothing beyond the
        audio that it was given counts."""
        consumed = min(consumed, self._fed)
        if consumed > self._consumed:
            self._consumed = consumed
            self._look(progress=True)

    def excuse(self) -> None:
        """The engine could not show any progress: its patience starts anew."""
        self._look(progress=True)

    def end(self) -> None:
        """The stream is over: nothing waits any more."""
        self._over = True

    def _look(self, *, progress: bool) -> None:
        behind = self._finishing or self.full or self._fed - self._consumed >= _MIN_PENDING
        if not behind:
            self._behind_since = math.inf
        elif progress or self._behind_since == math.inf:
            self._behind_since = trio.current_time()
