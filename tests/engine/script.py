"""What the scripted engine hears and how it behaves; pure, without a clock or a loop.

Audio is cut into frames of 80 ms from the start of the stream. A frame of zeros is silent, and so
is about every fourth other one; the rest are each one word, made of the frame's checksum. The last
frame may be shorter and is heard when the stream finishes. So `transcript` tells what must come out
of any audio, however it was chopped up on its way.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable
from typing import Any, Final

import attrs

from voxtral_actors.engine.port import (
    EngineEvent,
    EngineInfo,
    Failed,
    Finished,
    Progress,
    Text,
)
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE
from voxtral_actors.utterance.timing import Timing

FRAME: Final = SAMPLE_RATE * 80 // 1000
FRAME_BYTES: Final = FRAME * BYTES_PER_SAMPLE
NEVER: Final = math.inf
TIMING: Final = Timing(lag=FRAME)
"""The word of a frame comes when the frame has been used."""
_SYLLABLES: Final = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


def word(frame: bytes) -> str:
    """What is heard in one frame: a space and a word, or nothing."""
    crc = zlib.crc32(frame)
    if crc % 4 == 0 or not any(frame):
        return ""
    syllables = (_SYLLABLES[crc // 70**place % 70] for place in range(1, 4))
    return " " + "".join(syllables)


def transcript(pcm: bytes) -> str:
    """The whole text of a stream that was fed `pcm` and finished."""
    starts = range(0, len(pcm), FRAME_BYTES)
    return "".join(word(pcm[start : start + FRAME_BYTES]) for start in starts)


def speech(seconds: float, seed: int = 0) -> bytes:
    """Audio that has a transcript, another one for each seed."""
    return random.Random(seed).randbytes(round(seconds * SAMPLE_RATE) * BYTES_PER_SAMPLE)


class ScriptedError(Exception):
    """The fault that the script asked for."""


@attrs.frozen(kw_only=True)
class Script:
    """How the engine behaves. Positions are samples of a stream; times count on trio's clock, and
    in the loop thread on the real one."""

    # The engine as a whole.
    slots: int = 4
    spare: int = 0
    rolls: bool = False
    timing: Timing = TIMING
    start_s: float = 0
    fail_start: int = 0
    """So many lives end before they are ready."""
    die_at_s: float = NEVER
    """Each life ends so long after it was ready."""

    # Each stream; `Scripted.streams` may say otherwise for single ones.
    step_s: float = 0
    """The time that one frame takes; 0 is as fast as possible."""
    mute_after: float = NEVER
    """Nothing to say about what comes after."""
    hang_after: float = NEVER
    """No progress from here on, not even when the stream finishes."""
    fail_after: float = NEVER
    die_after: float = NEVER
    """The stream takes the whole engine with it."""
    open_raises: bool = False
    garbage: bool = False
    """Empty texts, positions that go back, events after the last one and after `Released`."""
    late: bool = False
    """Text and `Finished` after abort."""
    never_release: bool = False
    """Ignores abort, and keeps the slot after the last event too."""
    release_after_s: float = 0

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            "scripted", "tiny", self.slots, 80, "Not a recogniser.",
            timing=self.timing, spare=self.spare, rolls=self.rolls,
        )  # fmt: skip


HEALTHY: Final = Script()


def random_script(rng: random.Random) -> Script:
    """Any behaviour: in one case of three no fault, in the others up to three at a time."""

    def position() -> int:
        return rng.randrange(8 * FRAME)

    faults: dict[str, Callable[[], Any]] = {
        "fail_start": lambda: rng.randint(1, 3),
        "die_at_s": lambda: rng.expovariate(1 / 20),
        "hang_after": position,
        "fail_after": position,
        "die_after": position,
        "open_raises": lambda: True,
        "garbage": lambda: True,
        "late": lambda: True,
        "never_release": lambda: True,
        "release_after_s": lambda: rng.expovariate(1),
    }
    chosen = rng.sample(list(faults), rng.choice((0, 0, 1, 1, 2, 3)))
    return Script(
        slots=rng.randint(1, 4),
        start_s=rng.choice((0, rng.random())),
        step_s=rng.choice((0, 0.01, 0.08, 0.2)),
        **{name: faults[name]() for name in chosen},
    )


class Part:
    """One stream: its script, its audio, and what became of it. No clock and no loop."""

    def __init__(self, script: Script, label: str) -> None:
        self.script = script
        self.label = label
        self.fed = 0
        """Bytes that reached the engine."""
        self.consumed = 0
        self.finished = self.over = self.released = False
        self.aborted = False
        """Told to abort; in the loop thread perhaps only cancelled because the engine stops."""
        self._audio = bytearray()

    def feed(self, pcm: bytes) -> None:
        self.fed += len(pcm)
        self._audio += pcm

    @property
    def ready(self) -> bool:
        """Whether `step` has something to do."""
        if self.over or self.consumed >= self.script.hang_after:
            return False
        return self.finished or self.fed - self.consumed * BYTES_PER_SAMPLE >= FRAME_BYTES

    @property
    def complete(self) -> bool:
        """Whether there is nothing more to say."""
        return self.finished and not self._audio

    def hear(self) -> str | None:
        """Take the next frame; what is said to it, or None if there is none."""
        frame = bytes(self._audio[:FRAME_BYTES])
        del self._audio[:FRAME_BYTES]
        self.consumed += len(frame) // BYTES_PER_SAMPLE
        return word(frame) if frame else None

    def step(self) -> list[EngineEvent]:
        """Take the next frame, and say what is to say."""
        said: list[EngineEvent] = []
        if self.script.garbage:
            said += [Text("", 0), Progress(self.consumed // 2)]
        text = self.hear()
        if text is not None:
            text = text if self.consumed <= self.script.mute_after else ""
            said.append(Text(text, self.consumed) if text else Progress(self.consumed))
        if self.consumed >= self.script.die_after:
            raise ScriptedError("the engine dies of this stream")
        if self.consumed >= self.script.fail_after:
            self.over = True
            said.append(Failed("scripted", "the script says so"))
        elif self.complete:
            self.over = True
            said.append(Finished(self.consumed))
        if self.over and self.script.garbage:
            said += self.ghosts()
        return said

    def ghosts(self) -> list[EngineEvent]:
        """What a stream that is over must not say."""
        return [Finished(0), Text(" ghost", 0), Failed("ghost", "and more of it"), Progress(0)]
