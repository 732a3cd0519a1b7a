"""The load itself: sessions that speak, each a task, and what is seen of the server meanwhile.

At live pace every session sends a chunk when its last sample would have been spoken, on an absolute
schedule, and starts at a moment of its own, so that the sessions do not speak in step. Figures are
taken in a window that opens when all of them speak and the server has settled. In the closed loop a
session sends as fast as the server takes it, and starts the next utterance when it has the text of
the last one.

The *lag* of a text is the time from the moment when the audio that it stands for was due to its
arrival. The model's own delay is in it, as it is for who waits for the text.

The generator watches itself: a chunk that goes out late by its own fault (`slip`), and its share of
a core. Figures of a run in which it could not keep up are marked, for they are the generator's.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import count

import attrs
import trio
import trio_websocket

from bench.figures import percentile, percentiles
from bench.load_voices import STEP_S, FailedError, Target, Voice, dial
from bench.processes import cpu_seconds, memory_bytes
from voxtral_actors.client import ClientError
from voxtral_actors.groups import leaves
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE

BYTES_PER_SECOND = SAMPLE_RATE * BYTES_PER_SAMPLE
BUSY_SHARE = 0.8
LATE_S = 0.02
"""Where the generator is the bottleneck: so much of a core, or a chunk in a hundred so late."""
LAST_TEXT_S = 60.0
"""For the rest of the text after the last audio; then the session counts as failed."""


@attrs.frozen(kw_only=True)
class Plan:
    """One run."""

    sessions: int
    seconds: float
    """Of the window."""
    chunk_ms: int = 80
    live: bool = True
    utterance_s: float = 10.0
    """Closed loop: the length of an utterance."""
    first_voice: int = 0
    """Of the voices that speak in this run; see `chunks`."""
    ramp_s: float = 1.0
    """Over which the sessions begin."""
    settle_s: float = 1.0
    """From the first word of the last session to the opening of the window."""


@attrs.define
class Result:
    """What a run has shown. CPU and memory are of the processes that were named to it."""

    plan: Plan
    audio_s: float = 0.0
    """Audio that was sent inside the window."""
    utterances: int = 0
    deltas: int = 0
    errors: Counter[str] = attrs.field(factory=Counter)
    lag_ms: dict[str, float] = attrs.field(factory=dict)
    final_ms: dict[str, float] = attrs.field(factory=dict)
    """From the last audio to the whole text."""
    connect_ms: dict[str, float] = attrs.field(factory=dict)
    cpu_s: dict[int, float] = attrs.field(factory=dict)
    """By process id, inside the window."""
    window_s: float = 0.0
    memory_kb_a_session: float = 0.0
    generator_share: float = 0.0
    """Of one core."""
    slip_p99_ms: float = 0.0

    @property
    def steps(self) -> float:
        """Steps of the model in the window, by the audio."""
        return self.audio_s / STEP_S

    @property
    def generator_is_bottleneck(self) -> bool:
        late = self.plan.live and self.slip_p99_ms > LATE_S * 1000
        return late or self.generator_share > BUSY_SHARE

    @property
    def kept_pace(self) -> bool:
        """Whether as much audio went in as was spoken: at live pace, that nobody was held up."""
        return self.audio_s >= 0.95 * self.plan.sessions * self.window_s


def chunks(audio: bytes, chunk_ms: int, seed: int) -> Iterator[bytes]:
    """`audio` over and over, in chunks; each seed begins at a place of its own.

    No two of 1280 neighbours begin a multiple of 80 ms apart: vLLM keeps what it has made of a
    frame, and would take the same samples from another session, or from a run before, for heard
    already. Nobody says the same thing twice to the sample.
    """
    size = chunk_ms * BYTES_PER_SECOND // 1000
    begin = seed * 7919 * BYTES_PER_SAMPLE % len(audio)
    while True:
        chunk = audio[begin : begin + size]
        while len(chunk) < size:
            chunk += audio[: size - len(chunk)]
        begin = (begin + size) % len(audio)
        yield chunk


class Drive:
    """One run of a plan; `run` gives its result. `around` is awaited just before the window opens
    and just after it has closed."""

    def __init__(
        self,
        plan: Plan,
        target: Target,
        audio: bytes,
        pids: Sequence[int] = (),
        around: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        self._plan = plan
        self._target = target
        self._audio = audio
        self._pids = list(pids)
        self._around = around
        self._result = Result(plan)
        self._open = False  # the window
        self._over = trio.Event()
        self._speaking = 0
        self._all_speak = trio.Event()
        self._lags: list[float] = []
        self._finals: list[float] = []
        self._connects: list[float] = []
        self._slips: list[float] = []

    async def run(self) -> Result:
        plan, result = self._plan, self._result
        memory = self._memory()
        async with trio.open_nursery() as nursery:
            for number in range(plan.sessions):
                nursery.start_soon(self._session, number)
            await self._all_speak.wait()
            await trio.sleep(plan.settle_s)
            await self._watch()
            if plan.sessions > sum(result.errors.values()):
                grown = (self._memory() - memory) / 1024
                result.memory_kb_a_session = grown / plan.sessions
            self._over.set()
        result.lag_ms = percentiles(self._lags)
        result.final_ms = percentiles(self._finals)
        result.connect_ms = percentiles(self._connects)
        result.slip_p99_ms = percentile(self._slips, 0.99) if self._slips else 0.0
        return result

    async def _watch(self) -> None:
        """The window."""
        result = self._result
        await self._around()
        begun, own = trio.current_time(), cpu_seconds(os.getpid())
        before = {pid: cpu_seconds(pid) for pid in self._pids}
        self._open = True
        await trio.sleep(self._plan.seconds)
        self._open = False
        result.cpu_s = {pid: cpu_seconds(pid) - cpu for pid, cpu in before.items()}
        result.window_s = trio.current_time() - begun
        result.generator_share = (cpu_seconds(os.getpid()) - own) / result.window_s
        await self._around()

    def _memory(self) -> int:
        return sum(memory_bytes(pid) for pid in self._pids)

    # --- One session -------------------------------------------------------------------------

    async def _session(self, number: int) -> None:
        told = False
        try:
            await trio.sleep(self._plan.ramp_s * number / self._plan.sessions)
            begun = trio.current_time()
            async with dial(self._target) as line:
                self._connects.append(1000 * (trio.current_time() - begun))
                for utterance in count():
                    async with line.speak() as voice, trio.open_nursery() as nursery:
                        if not told:
                            told = True
                            self._speaks()
                        seed = self._plan.first_voice + number + utterance * self._plan.sessions
                        nursery.start_soon(self._speak, voice, seed)
                    self._result.utterances += 1
                    if self._over.is_set() or self._plan.live:
                        return
        except* (ClientError, FailedError, OSError, trio.TooSlowError, ConnectionError) as group:
            self._failed(*leaves(group))
        except* (trio_websocket.ConnectionClosed, trio_websocket.HandshakeError) as group:
            self._failed(*leaves(group))
        finally:
            if not told:
                self._speaks()

    def _failed(self, *errors: BaseException) -> None:
        said = f"{type(errors[0]).__name__}: {errors[0]}"
        self._result.errors[said.partition("\n")[0][:120]] += 1

    def _speaks(self) -> None:
        self._speaking += 1
        if self._speaking == self._plan.sessions:
            self._all_speak.set()

    async def _speak(self, voice: Voice, seed: int) -> None:
        """One utterance, with its text read beside."""
        start = trio.current_time()
        sent_at = [start]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear, voice, start, sent_at)
            for number, chunk in enumerate(chunks(self._audio, self._plan.chunk_ms, seed), 1):
                if not await self._due(start, number):
                    break
                await voice.send(chunk)
                if self._open:
                    self._result.audio_s += len(chunk) / BYTES_PER_SECOND
            sent_at[0] = trio.current_time()
            await voice.finish()
            nursery.cancel_scope.deadline = trio.current_time() + LAST_TEXT_S
        if nursery.cancel_scope.cancelled_caught:
            raise FailedError("the last text did not come")

    async def _due(self, start: float, number: int) -> bool:
        """Wait for the moment of an utterance's n-th chunk; False if there is to be none."""
        plan = self._plan
        if plan.live:
            due = start + number * plan.chunk_ms / 1000
            await trio.sleep_until(due)
            if self._open:
                self._slips.append(1000 * (trio.current_time() - due))
        elif number * plan.chunk_ms > 1000 * plan.utterance_s:
            return False
        return not self._over.is_set()

    async def _hear(self, voice: Voice, start: float, sent_at: list[float]) -> None:
        async for position, _ in voice.heard():
            if self._open:
                self._result.deltas += 1
                if self._plan.live:
                    self._lags.append(1000 * (trio.current_time() - start - position))
        self._finals.append(1000 * (trio.current_time() - sent_at[0]))
