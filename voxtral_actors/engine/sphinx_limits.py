"""Every buffer size, timeout and cap of the embedded engine, each with its reason.

Times are seconds, sizes are bytes, unless the name says otherwise.
"""

from __future__ import annotations

from typing import Final

from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE

WARM: Final = 2
"""Workers that wait for a stream, and how many start at the same time. One start takes about half
a second of one core; two cover an utterance that follows at once upon another."""

SLOTS_A_CONNECTION: Final = 2
"""One utterance that is spoken and one that is being finalised: overlap must not need luck."""

START_S: Final = 30.0
"""From the start of a worker to its first word. Half a second on an idle machine; the rest is for
one that starts many things at once on a slow disk."""

RETRY_S: Final = 1.0
"""Pause after a worker that could not start: a machine out of memory needs a moment."""

REAP_S: Final = 2.0
"""A killed worker is gone within milliseconds; only one stuck in the kernel is not, and nobody can
help that, so it is left to the kernel."""

PIECE_BYTES: Final = SAMPLE_RATE * BYTES_PER_SAMPLE // 10
"""Audio in one message to a worker: 100 ms, so that progress shows in small steps."""

PROGRESS_SAMPLES: Final = SAMPLE_RATE * 80 // 1000
"""A worker reports progress when at least this much is new: the step of Voxtral, so that both
engines cause the same number of events."""

MAX_TEXT_BYTES: Final = 64 * 1024
"""Text of one event of a worker. A segment lasts `SEGMENT_MAX_FRAMES`, in which nobody says
a hundredth of it: a larger length is garbage."""

FRAME_S: Final = 0.03
"""Frame of the voice detector; it takes 10, 20 or 30 ms and is most reliable with the longest."""

VAD_MODE: Final = 2
"""Strictness of the voice detector, 0 to 3. The laxer ones take background noise for speech."""

VOTES: Final = 15
START_VOTES: Final = 7
END_VOTES: Final = 1
"""A segment starts when 7 of the last 15 frames (450 ms) are speech, which a short "yes" reaches,
and ends when at most one is: shorter pauses are inside a sentence, whose words need each other."""

TAIL_VOTES: Final = 3
"""At the end of the stream this much speech is enough: 90 ms, where a click is shorter."""

PREROLL_FRAMES: Final = 25
"""Frames before the start of a segment that belong to it: the votes' 15 and 300 ms more, for the
soft first sounds that the detector misses."""

SEGMENT_LONG_FRAMES: Final = 333
LULL_FRAMES: Final = 3
"""After 10 s without a pause a lull of 90 ms ends the segment, so that text comes out."""

SEGMENT_MAX_FRAMES: Final = 667
"""After 20 s the segment ends wherever it is, perhaps inside a word: text must come, and the
decoder's memory grows with the segment."""
