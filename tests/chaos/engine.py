"""The scripted engine with the faults that a script cannot have, and a record of its lives.

`ChaosEngine` stands between the engine actor and `Scripted`. Some streams say what they must say
only once twice (`twice`), claim to have used more audio than they were given (`overruns`), or speak
after their slot is free (`echoes`). It keeps the times at which a life was ready and ended, and an
utterance got and lost a stream, for the judge, and holds the bound on what waits at the engine for
each stream at each moment (P10).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise

import attrs
import trio

from tests.engine.scripted import NEVER, Part, Scripted
from voxtral_actors.engine.port import (
    Backend,
    BackendEvent,
    BackendStream,
    Deliver,
    EngineInfo,
    Failed,
    Finished,
    Progress,
    Released,
    StreamSpec,
    Text,
)
from voxtral_actors.limits import BYTES_PER_SAMPLE, ENGINE_RELEASE_S, SAMPLE_RATE

OVERRUN_SAMPLES = 10**7
ECHO_S = 0.05


@attrs.frozen
class Quirks:
    """What one stream does beside its script."""

    twice: bool = False
    overruns: bool = False
    echoes: bool = False
    """Speaks again when its slot is free, and another stream may have it."""


@attrs.define
class Life:
    """When one backend was ready, if it ever was, and when it ended."""

    ready_at: float | None = None
    ended_at: float | None = None
    killed: bool = False


@attrs.define
class Try:
    """One stream of an utterance: when the engine was asked for it, and when it was over, whoever
    ended it."""

    opened_at: float
    ended_at: float = NEVER

    def end(self) -> None:
        self.ended_at = min(self.ended_at, trio.current_time())


@attrs.define(eq=False)
class ChaosEngine:
    """The engine over all its lives; `backend` is what an `EngineActor` wants.

    `most_waiting` is in samples, and more may wait for who had to wait for a stream: as much as is
    said in `replay_budget_s`. `complain` takes a violation as text.
    """

    scripted: Scripted
    quirks: Callable[[int], Quirks]
    """Of the n-th stream."""
    most_waiting: int
    replay_budget_s: float
    complain: Callable[[str], None]
    lives: list[Life] = attrs.field(factory=list)
    overran: set[str] = attrs.field(factory=set)
    """Labels of streams that claimed more than they did."""
    begun: dict[str, float] = attrs.field(factory=dict)
    """The name of an utterance -> when its client began it."""
    tries: dict[str, list[Try]] = attrs.field(factory=lambda: defaultdict(list))
    """The name of an utterance -> its streams, in order; also those that could not be opened."""

    def replaced(self, name: str) -> bool:
        """Whether a stream of this utterance was over before the next one was opened."""
        pairs = pairwise(self.tries[name])
        return any(earlier.ended_at <= later.opened_at for earlier, later in pairs)

    def can_lose(self, name: str) -> bool:
        """Whether the engine has lost a stream of this utterance, or its scripts can. A healthy one
        that seems to stall is not such a case: it was not given all of the audio."""
        if self.scripted.script.spare:
            return True  # or it has rolled
        since, until = self.tries[name][0].opened_at, self.tries[name][-1].opened_at
        died = any(since <= (life.ended_at or NEVER) <= until for life in self.lives)
        return died or any(
            part.script.open_raises
            or min(part.script.hang_after, part.script.fail_after, part.script.die_after) < NEVER
            or part.label in self.overran
            for part in self.scripted.streams
            if part.label.endswith(f"/{name}")
        )

    def waited(self, name: str) -> bool:
        """Whether this utterance may have waited for a stream: its first one, or another one."""
        tries = self.tries[name]
        until = tries[0].opened_at if tries else trio.current_time()
        return self.replaced(name) or self.was_down(self.begun.get(name, -math.inf), until)

    def stirred(self, name: str) -> float:
        """When a wait of this utterance last began or ended; `-inf` if it never waited. One that
        has no stream may be waiting yet, but not for longer than the budget."""
        tries = self.tries[name]
        now, last_try = trio.current_time(), tries[-1] if tries else None
        if last_try is None or last_try.ended_at < NEVER:
            since = last_try.ended_at if last_try else self.begun.get(name, -math.inf)
            lost = last_try is not None or self.was_down(since, now)
            return min(now, since + self.replay_budget_s) if lost else -math.inf
        return last_try.opened_at if self.waited(name) else -math.inf

    def backend(self) -> ChaosBackend:
        self.lives.append(Life())
        return ChaosBackend(self, self.scripted.backend(), self.lives[-1])

    def down_since(self) -> float | None:
        """Since when no life is ready; None if one is."""
        ended = 0.0
        for life in self.lives:
            if life.ready_at is not None:
                if life.ended_at is None:
                    return None
                ended = life.ended_at
        return ended

    def lost_lives(self, until: float) -> int:
        """Lives that ended before `until` though no script or storm ends one."""
        scripts = [self.scripted.script, *(part.script for part in self.scripted.streams)]
        fatal = any(
            script.never_release
            or script.release_after_s >= ENGINE_RELEASE_S
            or min(script.die_at_s, script.die_after) < NEVER
            for script in scripts
        )
        return (
            0
            if fatal
            else sum(
                life.ready_at is not None and not life.killed and (life.ended_at or NEVER) < until
                for life in self.lives
            )
        )

    def was_down(self, since: float, until: float = NEVER) -> bool:
        """Whether at any moment from `since` on, up to `until` or now, no life was ready."""
        until = min(until, trio.current_time())
        return not any(
            life.ready_at is not None
            and life.ready_at <= since
            and until < (NEVER if life.ended_at is None else life.ended_at)
            for life in self.lives
        )


@attrs.define(eq=False)
class ChaosBackend:
    """One life (`port.Backend`)."""

    engine: ChaosEngine
    backend: Backend
    life: Life
    _tries: list[Try] = attrs.field(init=False, factory=list)
    _echoes: trio.Nursery = attrs.field(init=False)

    async def run(self, *, task_status: trio.TaskStatus[EngineInfo]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._echoes = nursery
                info: EngineInfo = await nursery.start(self._live)
                self.life.ready_at = trio.current_time()
                task_status.started(info)
        finally:
            self.life.ended_at = trio.current_time()
            for attempt in self._tries:
                attempt.end()

    async def _live(self, *, task_status: trio.TaskStatus[EngineInfo]) -> None:
        await self.backend.run(task_status=task_status)

    def open(self, spec: StreamSpec, deliver: Deliver) -> BackendStream:
        scripted = self.engine.scripted
        quirks = self.engine.quirks(len(scripted.streams))
        attempt = Try(trio.current_time())
        self._tries.append(attempt)
        self.engine.tries[spec.label.rpartition("/")[2]].append(attempt)
        deliver = _watched(deliver, attempt)
        if quirks.twice or quirks.overruns:
            deliver = _quirky(deliver, quirks)
        if quirks.echoes:
            deliver = self._echoing(deliver)
        if quirks.overruns:
            self.engine.overran.add(spec.label)
        try:
            stream = self.backend.open(spec, deliver)
        except BaseException:
            attempt.end()
            raise
        return ChaosStream(self.engine, stream, scripted.streams[-1], attempt, quirks)

    def _echoing(self, deliver: Deliver) -> Deliver:
        async def echo() -> None:
            await trio.sleep(ECHO_S)
            deliver(Text(" echo", 0))

        def echoing(event: BackendEvent) -> None:
            deliver(event)
            if isinstance(event, Released):
                self._echoes.start_soon(echo)

        return echoing


def _watched(deliver: Deliver, attempt: Try) -> Deliver:
    def watched(event: BackendEvent) -> None:
        if isinstance(event, Finished | Failed | Released):
            attempt.end()
        deliver(event)

    return watched


def _quirky(deliver: Deliver, quirks: Quirks) -> Deliver:
    def quirky(event: BackendEvent) -> None:
        if quirks.overruns and isinstance(event, Text | Progress):
            event = attrs.evolve(event, consumed=event.consumed + OVERRUN_SAMPLES)
        deliver(event)
        if quirks.twice and not isinstance(event, Text):  # text said twice is text
            deliver(event)

    return quirky


@attrs.define(eq=False)
class ChaosStream:
    """One stream (`port.BackendStream`)."""

    engine: ChaosEngine
    stream: BackendStream
    part: Part
    attempt: Try
    quirks: Quirks

    def feed(self, pcm: bytes) -> None:
        self.stream.feed(pcm)
        waiting = self.part.fed // BYTES_PER_SAMPLE - self.part.consumed
        # Who claims to be further than it is gets more than it can hold: its own fault.
        most = self.engine.most_waiting
        if waiting > most and self.engine.waited(self.part.label.rpartition("/")[2]):
            most += int(self.engine.replay_budget_s * SAMPLE_RATE)
        if waiting > most and not self.quirks.overruns:
            self.engine.complain(f"P10 {self.part.label}: {waiting} samples wait at the engine")

    def finish(self) -> None:
        self.stream.finish()

    def abort(self) -> None:
        self.attempt.end()
        self.stream.abort()
