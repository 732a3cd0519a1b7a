"""What becomes of utterances, counted over all connections: one object for the server."""

from __future__ import annotations

from collections import Counter

import attrs

from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.utterance.chain import Chain, ChainStatistics
from voxtral_actors.utterance.segmenter import Reason


@attrs.define
class UtteranceFigures:
    """Counts that only grow, but for `waiting` and what the living utterances hold."""

    waiting: int = 0
    """Utterances that have lost their stream, or never had one, and wait for the engine."""
    waits: int = 0
    segments: Counter[str] = attrs.field(factory=Counter)
    """Streams that were followed by another one of the same utterance, by why: `Reason`."""
    replays: Counter[str] = attrs.field(factory=Counter)
    """Streams that were opened to hear audio again, by what had become of the one before: `lost`,
    `stalled` or `mute`."""
    replayed_s: float = 0.0
    given_up: Counter[str] = attrs.field(factory=Counter)
    """Why an utterance was not heard again: `budget`, `vain` (lost again and again) or `gap`."""
    ended: Counter[str] = attrs.field(factory=Counter)
    """What utterances came to: `done`, `cancelled`, `error`, or `left` if nobody was there."""
    _living: set[Chain] = attrs.field(factory=set)
    _forgotten: int = 0
    """Samples that the utterances which are over have forgotten."""

    def begins(self, chain: Chain) -> None:
        """One more utterance is alive."""
        self._living.add(chain)

    def ends(self, chain: Chain) -> None:
        """It is no more. Safe to call twice."""
        if chain in self._living:
            self._living.remove(chain)
            self._forgotten += chain.journal.forgotten

    def opened(self, was: ChainStatistics, now: ChainStatistics, *, stalled: bool) -> None:
        """An utterance has got one more stream."""
        rolled = next((reason for reason in Reason if now.rolls[reason] > was.rolls[reason]), None)
        if rolled is not None:
            self.segments[rolled.value] += 1
        if now.replays > was.replays:
            lost = "stalled" if stalled else "lost"
            self.replays["mute" if rolled is Reason.MUTE else lost] += 1
            self.replayed_s += (now.replayed - was.replayed) / SAMPLE_RATE

    def journals(self) -> tuple[float, float]:
        """Seconds of audio that are kept to be heard again, and that had to be forgotten so far."""
        journals = [chain.journal for chain in self._living]
        held = sum(journal.held for journal in journals)
        forgotten = sum(journal.forgotten for journal in journals) + self._forgotten
        return held / SAMPLE_RATE, forgotten / SAMPLE_RATE
