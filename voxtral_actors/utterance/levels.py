"""How loud it is, and whether that may be speech: one figure for each 20 ms of audio.

Speech is what is clearly louder than the noise. The noise floor is found by minimum statistics (R.
Martin, "Noise power spectral density estimation based on optimal smoothing and minimum statistics",
IEEE Transactions on Speech and Audio Processing 9(5), 2001), here for the whole band at once: even
in fluent speech the smoothed level falls to that of the noise every second or so, between words and
in the closure of a plosive, so the least level of the last seconds is about the noise. It follows
noise down at once and up within the window, needs no training and does not ask for a pause first.

Levels are in dB below full scale. A figure is taken from every eighth sample: folding the spectrum
keeps its power, and a block of 40 figures is within 1 dB of the truth. The mean is taken out, for
cheap microphones have an offset.
"""

from __future__ import annotations

from collections import deque
from math import hypot, log10
from typing import Final, NamedTuple

from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE

BLOCK: Final = SAMPLE_RATE // 50
"""Samples of one figure: short enough to see the gap between two words."""

_STRIDE: Final = 8
_PICKS: Final = BLOCK // _STRIDE
_BLOCK_BYTES: Final = BLOCK * BYTES_PER_SAMPLE
_FULL_SCALE_DB: Final = 20 * log10(2**15)

_SMOOTHING: Final = 0.3
"""The newest block's share of the smoothed level, which looks back about 60 ms: a click does not
pass for speech, nor a zero crossing for a pause."""

_PART: Final = 25
_PARTS: Final = 8
"""The window of the minimum: eight parts of half a second. Four seconds of fluent speech have a dip
to the noise in them; noise that grows louder passes for speech that long."""

MARGIN_DB: Final = 9.0
"""Above the floor by this much may be speech. Steady noise stays within 3 dB of its floor, and
speech that a recogniser gets right is 10 dB and more above the noise on average."""

LEAST_FLOOR_DB: Final = -70.0
"""A floor is never taken to be lower: behind a noise gate or a codec's silence there is no noise at
all, and then the breath of the speaker would be as loud as speech."""

CONTRAST_DB: Final = 14.0
"""Where speech is on average less than this above the floor, soft sounds drown in it and what looks
like a pause may be the middle of a word."""

_SPEECH_SMOOTHING: Final = 0.01
"""The speech level is the mean over about two seconds of speech, so a slammed door is forgotten."""


class Block(NamedTuple):
    """20 ms that end at `end`, in samples from the start. A tuple, for fifty are made a second."""

    end: int
    level: float
    quiet: int
    """How many blocks in a row there was no speech, this one included; 0 is speech."""


class Meter:
    """Measures one stream of PCM16."""

    def __init__(self) -> None:
        self.position = 0
        """Samples measured; up to one block less than were pushed."""
        self.floor = LEAST_FLOOR_DB
        """The level of the noise. Until it is known, nobody has been heard: silence is assumed."""
        self._rest = b""
        self._smooth = self._low = self._speech = LEAST_FLOOR_DB
        self._lows: deque[float] = deque([LEAST_FLOOR_DB] * _PARTS, maxlen=_PARTS)
        self._part = 0
        self._quiet = 0
        self._loudest_quiet = LEAST_FLOOR_DB

    @property
    def clear(self) -> bool:
        """Whether there was speech, and so far above the noise that a pause in it is one."""
        return self._speech - self.floor >= CONTRAST_DB

    def push(self, pcm: bytes) -> list[Block]:
        """Measure more audio: any number of whole samples."""
        if self._rest:
            pcm = self._rest + pcm
        size = len(pcm) // _BLOCK_BYTES * _BLOCK_BYTES
        self._rest = pcm[size:]
        figures = memoryview(pcm)[:size].cast("h")[::_STRIDE].tolist()
        starts = range(0, len(figures), _PICKS)
        return [self._measure(figures[start : start + _PICKS]) for start in starts]

    def _measure(self, figures: list[int]) -> Block:
        total, norm = sum(figures), hypot(*figures)
        # One is added so that silence has a logarithm; rounding may leave a little less than none.
        level = 10 * log10(abs(norm * norm - total * total / _PICKS) / _PICKS + 1) - _FULL_SCALE_DB
        smooth = self._smooth = self._smooth + _SMOOTHING * (level - self._smooth)
        if smooth < self._low:
            self._low = smooth
            if smooth < self.floor:
                self.floor = max(smooth, LEAST_FLOOR_DB)
        self._part += 1
        if self._part == _PART:
            self._end_part()
        if smooth >= self.floor + MARGIN_DB:
            self._speech += _SPEECH_SMOOTHING * (smooth - self._speech)
            self._quiet, self._loudest_quiet = 0, LEAST_FLOOR_DB
        else:
            self._loudest_quiet = max(self._loudest_quiet, smooth)
            if self._loudest_quiet >= self.floor + MARGIN_DB:
                # What passed for noise was not: the floor is lower than was known then.
                self._quiet, self._loudest_quiet = 0, smooth
            self._quiet += 1
        self.position += BLOCK
        return Block(self.position, level, self._quiet)

    def _end_part(self) -> None:
        self._lows.append(self._low)
        self.floor = max(min(self._lows), LEAST_FLOOR_DB)
        self._low, self._part = self._smooth, 0
