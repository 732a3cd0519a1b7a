"""The audio of one stream, cut the way Voxtral Realtime was trained to hear it; pure.

The model takes one token for each 80 ms. What it hears with a token reaches back into the time
before it and a little ahead (`Layout.look_back`, `look_ahead`), so neighbouring frames overlap.

The first frame is long: it goes with the whole prefix, which is the beginning-of-text token, the
left padding and the delay. The left padding is silence in front of the audio. When the client has
finished, the right padding follows: silence for the delay and for a long last word. Audio that
nobody spoke is not padded: a stream without audio has no frames.

Positions are samples of the client's audio; what is padding is never counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE
from voxtral_actors.utterance.timing import Timing

WORD_STEPS: Final = 6
"""So many steps after the delay the last token of a word has come: words have up to four tokens,
and a token may be a step or two late. [guess]"""


@attrs.frozen(kw_only=True)
class Layout:
    """How a model wants its audio; lengths are samples."""

    step: int
    """The audio of one token."""
    look_back: int
    look_ahead: int
    prefix: tuple[int, ...]
    """The tokens that go with the first frame."""
    left_pad: int
    right_pad: int
    delay_ms: int
    """How far the text trails the audio, prefix and padding included."""

    @property
    def frame_lengths(self) -> tuple[int, int]:
        """Samples of a stream's first frame, and of every other one."""
        first = len(self.prefix) * self.step + self.look_ahead
        return first, self.look_back + self.step + self.look_ahead

    def timing(self, max_tokens: int) -> Timing:
        """What it means for streams of at most so many tokens."""
        delay = self.delay_ms * SAMPLE_RATE // 1000
        spare = max_tokens - len(self.prefix) - self.right_pad // self.step - 1
        lag = delay + WORD_STEPS * self.step
        return Timing(delay=delay, lag=lag, longest=max(spare, 1) * self.step)


@attrs.frozen
class Frame:
    """The audio that goes to the model in one step."""

    pcm: bytearray = attrs.field(repr=False)
    """PCM16; a buffer of its own, which whoever takes the frame may keep and write."""
    tokens: int
    """How many tokens it stands for: one, but for the first frame."""
    consumed: int
    """Samples of the client's audio that have been used when this frame has been heard."""


class FrameCutter:
    """Cuts one stream. `feed` and `finish` put audio in, `frames` takes out what is complete."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._buffer = bytearray(layout.left_pad * BYTES_PER_SAMPLE)
        self._dropped = 0  # samples in front of the buffer that no frame needs any more
        self._start = 0  # where the tokens that come next begin, the left padding included
        self._fed = 0
        self._finished = False

    @property
    def fed(self) -> int:
        """Samples of the client's audio so far."""
        return self._fed

    def feed(self, pcm: bytes) -> None:
        """Add audio: any number of whole samples."""
        if self._finished:
            return
        self._buffer += pcm
        self._fed += len(pcm) // BYTES_PER_SAMPLE

    def finish(self) -> None:
        """No more audio comes."""
        if not self._finished and self._fed:
            self._buffer += bytes(self._layout.right_pad * BYTES_PER_SAMPLE)
        self._finished = True

    def frames(self) -> Iterator[Frame]:
        """The frames that are complete, each once."""
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        layout = self._layout
        tokens = 1 if self._start else len(layout.prefix)
        end = self._start + tokens * layout.step
        first = max(self._start - layout.look_back, 0)
        last = end + layout.look_ahead
        begins = (first - self._dropped) * BYTES_PER_SAMPLE
        ends = (last - self._dropped) * BYTES_PER_SAMPLE
        if not self._fed or len(self._buffer) < ends:
            return None
        pcm = self._buffer[begins:ends]
        self._start = end
        keep = end - layout.look_back
        del self._buffer[: (keep - self._dropped) * BYTES_PER_SAMPLE]
        self._dropped = keep
        return Frame(pcm, tokens, min(max(end - layout.left_pad, 0), self._fed))
