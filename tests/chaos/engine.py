"""The scripted engine with the faults that a script cannot have, and a record of its lives.

`ChaosEngine` stands between the engine actor and `Scripted`. Some streams say what they must say
only once twice (`twice`), claim to have used more audio than they were given (`overruns`), or speak
after their slot is free (`echoes`). It keeps the times at which a life was ready and ended, for the
judge, and holds the bound on what waits at the engine for each stream at each moment (P10).
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from tests.engine.scripted import NEVER, Part, Scripted
from voxtral_actors.engine.port import (
    Backend,
    BackendEvent,
    BackendStream,
    Deliver,
    EngineInfo,
    Progress,
    Released,
    StreamSpec,
    Text,
)
from voxtral_actors.limits import BYTES_PER_SAMPLE, ENGINE_RELEASE_S

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


@attrs.define(eq=False)
class ChaosEngine:
    """The engine over all its lives; `backend` is what an `EngineActor` wants.

    `most_waiting` and `most_replayed` are in samples: what may wait at a stream, and how much more
    of an utterance that had to wait for a stream. `complain` takes a violation as text.
    """

    scripted: Scripted
    quirks: Callable[[int], Quirks]
    """Of the n-th stream."""
    most_waiting: int
    most_replayed: int
    complain: Callable[[str], None]
    lives: list[Life] = attrs.field(factory=list)
    overran: set[str] = attrs.field(factory=set)
    """Labels of streams that claimed more than they did."""

    def lost_any(self, label: str) -> bool:
        """Whether an utterance may have had to wait for a stream, or for another one."""
        mine = [part for part in self.scripted.streams if part.label.endswith(label)]
        refuses = any(part.script.open_raises for part in self.scripted.streams)
        return len(mine) > 1 or len(self.lives) > 1 or self.scripted.script.open_raises or refuses

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

    def was_down(self, since: float) -> bool:
        """Whether at any moment from `since` on no life was ready."""
        return self.down_since() is not None or not any(
            life.ready_at is not None and life.ready_at <= since and life.ended_at is None
            for life in self.lives
        )


@attrs.define(eq=False)
class ChaosBackend:
    """One life (`port.Backend`)."""

    engine: ChaosEngine
    backend: Backend
    life: Life
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

    async def _live(self, *, task_status: trio.TaskStatus[EngineInfo]) -> None:
        await self.backend.run(task_status=task_status)

    def open(self, spec: StreamSpec, deliver: Deliver) -> BackendStream:
        scripted = self.engine.scripted
        quirks = self.engine.quirks(len(scripted.streams))
        if quirks.twice or quirks.overruns:
            deliver = _quirky(deliver, quirks)
        if quirks.echoes:
            deliver = self._echoing(deliver)
        if quirks.overruns:
            self.engine.overran.add(spec.label)
        stream = self.backend.open(spec, deliver)
        return ChaosStream(self.engine, stream, scripted.streams[-1], quirks)

    def _echoing(self, deliver: Deliver) -> Deliver:
        async def echo() -> None:
            await trio.sleep(ECHO_S)
            deliver(Text(" echo", 0))

        def echoing(event: BackendEvent) -> None:
            deliver(event)
            if isinstance(event, Released):
                self._echoes.start_soon(echo)

        return echoing


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
    quirks: Quirks

    def feed(self, pcm: bytes) -> None:
        self.stream.feed(pcm)
        waiting = self.part.fed // BYTES_PER_SAMPLE - self.part.consumed
        # Who claims to be further than it is gets more than it can hold: its own fault.
        most = self.engine.most_waiting
        if waiting > most and self.engine.lost_any(self.part.label):
            most += self.engine.most_replayed
        if waiting > most and not self.quirks.overruns:
            self.engine.complain(f"P10 {self.part.label}: {waiting} samples wait at the engine")

    def finish(self) -> None:
        self.stream.finish()

    def abort(self) -> None:
        self.stream.abort()
