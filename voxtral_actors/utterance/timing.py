"""When an engine's text comes, in samples of its audio."""

from __future__ import annotations

from typing import Final

import attrs

from voxtral_actors.limits import SAMPLE_RATE

SLACK: Final = SAMPLE_RATE * 3 // 10
"""Tokens of one word follow one another within this time, for a model puts out one in 80 ms and a
word has one to four. It is less than half of a pause."""


GRID: Final = SAMPLE_RATE * 80 // 1000
"""Streams begin on this grid wherever they can. It is Voxtral's step: audio that is heard again is
then cut into the same frames, which gives the same words more often."""


@attrs.frozen(kw_only=True)
class Timing:
    """What of an engine decides where its streams can be joined.

    Text that comes when an engine has used `consumed` samples is about audio before `consumed -
    delay`: that position is what "covered" means in this package. Once `consumed` is at least `lag`
    beyond some audio, all text about that audio has come, or there is none.
    """

    delay: int = 0
    """At the least so much later: the delay that the model was trained with."""
    lag: int
    """At the most so much later: the delay and the tokens of a long word, or the longest segment of
    an engine that says nothing before a segment's end."""
    jitter: int = SLACK
    """How far the positions of one text may differ between two hearings of the same audio. Where
    words repeat themselves within it, the place of a seam is uncertain."""
    longest: int | None = None
    """The longest stream, or None."""

    @property
    def spread(self) -> int:
        """How uncertain the position of a text is."""
        return self.lag - self.delay
