"""Where an utterance goes over from one engine stream to the next.

An utterance is a chain of streams, its *segments*, because no stream is good for ever: a model's
context has an end, its memory grows with the stream, and now and then a model falls silent over
speech and stays so. The segmenter hears the audio and says where the next segment should begin:

1. after `target_s`, in the next pause in which no text is overdue: nothing can be lost there;
2. where no pause comes until `limit_s`, at the quietest moment of the last `window_s`; the streams
   overlap there, and `stitch` finds the seam in the words;
3. where speech gets no text for `mute_s`: then the segment begins where that speech began.

It proposes; whoever has the streams calls `begin` where a segment really began, and is asked again
a little later if it did not. Positions are samples from the start of the utterance, and there is no
other clock: a proposal depends on nothing but the audio and on what was heard in it.
"""

from __future__ import annotations

import enum
from collections import deque
from math import inf
from typing import Final, TypeAlias

import attrs

from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.utterance.levels import BLOCK, Block, Meter
from voxtral_actors.utterance.timing import GRID, Timing

LEAD: Final = SAMPLE_RATE // 5
"""How far a segment reaches back into the pause before it, for the soft beginning of a word that
was taken for silence."""

LEAST_OVERLAP: Final = SAMPLE_RATE // 2
"""Of two streams that are cut in the middle of speech: one long word or two short ones."""

AGAIN: Final = SAMPLE_RATE
"""Between two proposals that were not followed."""

SPEECH_WINDOW: Final = 30 * SAMPLE_RATE
"""Speech without text is counted over this window, so that the coughs of an hour do not add up. It
is also how much audio stays unsettled because it may be speech."""

MUTE_AGAIN: Final = 30 * SAMPLE_RATE
MUTE_AGAIN_MOST: Final = 8 * MUTE_AGAIN
"""Music has no text however often it is heard: after a try in vain the next one waits, twice as
long each time up to four minutes, until some text comes."""

USABLE: Final = 0.9
"""Of the longest stream that a model takes, and of the limit until pauses are looked for: the rest
is for proposals that cannot be followed at once."""

_AHEAD: Final = 120 * SAMPLE_RATE // BLOCK
"""Speech blocks that the engine has not used yet: more than two minutes of them count as text."""

_GAP: Final = 5
"""Blocks over which the level is averaged to find the quietest moment: 100 ms, a gap of words."""


@attrs.frozen(kw_only=True)
class Policy:
    """When to roll. 0 in `target_s` turns rolling by length off, 0 in `mute_s` that by silence."""

    target_s: float = 300.0
    """Five minutes: less than half of the model's attention window (8192 tokens, 655 s), short of
    every length at which trouble was reported, and long enough that what a roll costs (about 20
    steps of the engine, and the context of the words before) is next to nothing."""
    limit_s: float = 360.0
    """A minute to find a pause in: people make one every few seconds."""
    pause_s: float = 0.6
    """Longer than any plosive or gap inside a phrase (up to 300 ms); pauses between phrases are."""
    window_s: float = 2.0
    """Where to look for the quietest moment: two seconds have several gaps between words."""
    mute_s: float = 8.0
    """So much speech gets some text from a healthy model, whatever the language."""


class Reason(enum.Enum):
    """Why a segment ends."""

    PAUSE = "pause"
    LENGTH = "length"
    MUTE = "mute"


@attrs.frozen
class Pause:
    """Nobody speaks around this position."""

    at: int


@attrs.frozen
class Roll:
    """The next segment should begin `at`; the one before has been fed up to `end`.

    Between the two nobody speaks if the reason is PAUSE. At LENGTH both hear the same words there.
    At MUTE the old segment is given up and the new one hears it all again.
    """

    at: int
    end: int
    reason: Reason


Note: TypeAlias = Pause | Roll


class Segmenter:
    """Hears one utterance: its audio through `push`, what came of it through `heard`."""

    def __init__(self, policy: Policy, timing: Timing) -> None:
        self._policy = policy
        self._lag = timing.lag
        longest = inf if timing.longest is None else timing.longest * USABLE
        limit = max(min(policy.limit_s * SAMPLE_RATE, longest), policy.window_s * SAMPLE_RATE)
        self._limit = limit if policy.target_s else inf
        self._target = min(policy.target_s * SAMPLE_RATE, self._limit * USABLE) or inf
        self._pause = round(policy.pause_s * SAMPLE_RATE) // BLOCK
        self._meter = Meter()
        self._start = 0
        self._retry_at = 0
        self._window: deque[float] = deque(maxlen=round(policy.window_s * SAMPLE_RATE) // BLOCK)
        # Where speech is: ends of blocks. Ahead of the engine, and used by it without any text.
        self._ahead: deque[int] = deque(maxlen=_AHEAD)
        self._unheard: deque[int] = deque()
        self._mute_at = 0  # the last proposal
        self._mute_from = 0  # no proposal before
        self._mute_wait = MUTE_AGAIN

    @property
    def unheard_from(self) -> int | None:
        """Where the audio begins that may be speech and may have no text yet, if there is any."""
        first = self._unheard or self._ahead
        return max(first[0] - BLOCK - LEAD - self._lag, 0) if first else None

    def push(self, pcm: bytes) -> list[Note]:
        """Take more audio: any number of whole samples."""
        notes: list[Note] = []
        for block in self._meter.push(pcm):
            self._window.append(block.level)
            if not block.quiet:
                self._ahead.append(block.end)
            elif block.quiet % self._pause == 0 and self._meter.clear:
                notes.append(Pause(_before(block.end)))
            if block.end - self._start >= self._target and block.end >= self._retry_at:
                notes.extend(self._roll(block))
        return notes

    def heard(self, consumed: int, *, text: bool) -> Roll | None:
        """The engine has used `consumed` samples; `text` if it had something to say to them."""
        ahead, unheard = self._ahead, self._unheard
        while ahead and ahead[0] <= consumed:
            unheard.append(ahead.popleft())
        if text:
            unheard.clear()
            self._mute_from, self._mute_wait = 0, MUTE_AGAIN
            return None
        while unheard and unheard[0] < consumed - SPEECH_WINDOW - self._lag:
            unheard.popleft()
        enough = self._policy.mute_s * SAMPLE_RATE + self._lag
        if not self._policy.mute_s or len(unheard) * BLOCK < enough or consumed < self._mute_from:
            return None
        at = self.unheard_from
        assert at is not None  # noqa: S101 - there is unheard speech
        self._mute_at, self._mute_from = consumed, consumed + AGAIN
        return Roll(at, self._meter.position, Reason.MUTE)

    def begin(self, at: int, *, mute: bool = False) -> None:
        """A segment begins here, as proposed because of silence or not: the engine is going to hear
        all that comes after."""
        self._start = at
        if mute:
            self._mute_from = self._mute_at + self._mute_wait
            self._mute_wait = min(2 * self._mute_wait, MUTE_AGAIN_MOST)
        while self._unheard and self._unheard[-1] > at:
            self._ahead.appendleft(self._unheard.pop())
        self._unheard.clear()

    def _roll(self, block: Block) -> list[Roll]:
        if block.quiet >= self._pause and self._meter.clear and not self._perhaps_mute:
            # Not up to this block: it may be the first of a word, whose level is smoothed.
            at, end, reason = _before(block.end), block.end - BLOCK, Reason.PAUSE
        elif block.end - self._start >= self._limit:
            at, end, reason = self._quietest(block.end), block.end, Reason.LENGTH
        else:
            return []
        self._retry_at = block.end + AGAIN
        return [Roll(at, end, reason)]

    @property
    def _perhaps_mute(self) -> bool:
        """Text is overdue. A stream that is left now would take the words with it."""
        return self._policy.mute_s > 0 and len(self._unheard) * BLOCK > self._lag

    def _quietest(self, end: int) -> int:
        """The middle of the gap with the least level in the window, its newest part left out."""
        levels = list(self._window)[: len(self._window) - LEAST_OVERLAP // BLOCK]
        sums = [sum(levels[first : first + _GAP]) for first in range(len(levels) - _GAP + 1)]
        quietest = sums.index(min(sums))
        return end - (len(self._window) - quietest) * BLOCK + _GAP * BLOCK // 2


def _before(quiet: int) -> int:
    """Where in the pause that lasts until here a segment should begin."""
    return (quiet - LEAD) // GRID * GRID
