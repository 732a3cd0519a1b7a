"""The engine actor: one for the process, between every connection and the one backend.

It owns the backend's life. It starts it, is ready while it runs, and starts a new one with backoff
when it died, could not start, or no longer lets go of streams. Whatever a dead backend still says
is dropped and counted.

It owns the slots. A slot is taken by `open` and free when the backend says `Released`: what is
counted is what the GPU still holds. A stream that is over and about to be released keeps nobody
out, up to as many of them as there are slots. Nor does one that rolls: as long as it stands beside
the stream that it follows, the two have one slot and one of the spare ones.

Each stream has a generation number that is never used twice, so a late event cannot reach the next
stream in the same slot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import attrs
import structlog
import trio

from voxtral_actors import limits
from voxtral_actors.engine.port import (
    Backend,
    BackendEvent,
    EngineFullError,
    EngineInfo,
    EngineStream,
    EngineUnavailableError,
    Failed,
    Finished,
    Inspected,
    Measured,
    Mortal,
    Released,
    StreamSpec,
)
from voxtral_actors.engine.stream import ActorStream
from voxtral_actors.groups import describe
from voxtral_actors.standstill import stood_still

log = structlog.get_logger(__name__)


class EngineDiedError(Exception):
    """The backend stopped without being asked to."""


class EngineStuckError(Exception):
    """The backend does not let go of a stream that is over."""


@attrs.frozen
class EngineStatistics:
    """A moment of the engine actor."""

    ready: bool
    slots: int
    """How many streams the engine takes; 0 while none is ready."""
    slots_taken: int
    """Streams that the backend still holds, those that are over among them."""
    streams_opened: int
    streams_refused: int
    """Opens that found no free slot."""
    slots_rolling: int
    """Spare slots that are taken: streams beside another one of their utterance."""
    rolls_refused: int
    """Opens beside another stream that found no spare slot."""
    events_dropped: int
    """Events for streams that were over."""
    starts: int
    """Times a backend became ready."""
    deaths: int
    """Times a backend failed to start, died, or was given up."""
    slots_leaving: int
    """Taken slots whose stream is over: the backend is about to let go of them."""
    oldest_leaving_s: float
    """How long the first of those has been over; 0 without any."""


class EngineActor:
    """See the module. `make_backend` makes a new backend for each life."""

    def __init__(self, make_backend: Callable[[], Backend]) -> None:
        self._make_backend = make_backend
        self._backend: Backend | None = None
        self._info: EngineInfo | None = None
        self._streams: dict[int, ActorStream] = {}
        self._leaving: dict[int, float] = {}  # generation -> since when it is over, oldest first
        self._pairs: dict[int, int] = {}  # generation -> the other one's, of those that roll
        self._left = trio.Event()
        self._became_ready = trio.Event()
        self._ready_at = math.inf
        self._generation = 0
        self._opened = self._refused = self._dropped = self._starts = self._deaths = 0
        self._rolls_refused = 0

    # --- The connection's side (port.Engine) -------------------------------------------------

    @property
    def info(self) -> EngineInfo | None:
        return self._info

    def open(self, spec: StreamSpec, beside: EngineStream | None = None) -> EngineStream:
        if self._backend is None or self._info is None:
            raise EngineUnavailableError("the engine is not ready")
        old = beside.generation if isinstance(beside, ActorStream) else None
        if old not in self._streams or old in self._leaving:
            old = None  # it is over already: then this one has a slot of its own
        self._find_slot(self._info, rolling=old is not None)
        self._generation += 1
        stream = ActorStream(self._generation, self._abort)
        self._streams[stream.generation] = stream
        if old is not None:
            self._pairs |= {old: stream.generation, stream.generation: old}
        deliver = partial(self._deliver, stream.generation)
        try:
            stream.backend = self._backend.open(spec, deliver)
        except Exception as error:
            # A backend that cannot open is no reason to fail the connection: it is not ready.
            self._streams.pop(stream.generation, None)
            self._leaving.pop(stream.generation, None)
            self._part(stream.generation)
            log.exception("engine.open_failed", stream=spec.label)
            raise EngineUnavailableError("the engine could not open a stream") from error
        self._opened += 1
        return stream

    def _find_slot(self, info: EngineInfo, *, rolling: bool) -> None:
        # One that is over frees its slot in a moment: barge-in must find it. Not without end,
        # though: a backend that is slow to let go must not be buried under streams.
        buried = len(self._streams) >= 2 * (info.slots + info.spare)
        pairs = len(self._pairs) // 2
        if rolling and (buried or pairs >= info.spare):
            self._rolls_refused += 1
            raise EngineFullError(f"all {info.spare} spare slots are taken")
        utterances = len(self._streams) - len(self._leaving) - pairs
        if not rolling and (buried or utterances >= info.slots):
            self._refused += 1
            raise EngineFullError(f"all {info.slots} engine slots are taken")

    async def wait_ready(self) -> EngineInfo:
        """Wait for an engine that is ready, and return what it says of itself."""
        while self._info is None:
            await self._became_ready.wait()
        return self._info

    def statistics(self) -> EngineStatistics:
        now = trio.current_time()
        return EngineStatistics(
            ready=self._info is not None,
            slots=self._info.slots if self._info else 0,
            slots_taken=len(self._streams),
            streams_opened=self._opened,
            streams_refused=self._refused,
            slots_rolling=len(self._pairs) // 2,
            rolls_refused=self._rolls_refused,
            events_dropped=self._dropped,
            starts=self._starts,
            deaths=self._deaths,
            slots_leaving=len(self._leaving),
            oldest_leaving_s=now - next(iter(self._leaving.values()), now),
        )

    def streams(self) -> list[ActorStream]:
        """The streams that hold a slot, by age; those that are over among them."""
        return list(self._streams.values())

    def inside(self) -> Mapping[str, object]:
        """What the backend of this life shows of itself; nothing while none is ready."""
        backend: object = self._backend
        return attrs.asdict(backend.statistics()) if isinstance(backend, Inspected) else {}

    def figures(self) -> Mapping[str, float]:
        """What the backend of this life measures itself; nothing while none is ready."""
        backend: object = self._backend
        return backend.figures() if isinstance(backend, Measured) else {}

    # --- The backend's side ------------------------------------------------------------------

    def _deliver(self, generation: int, event: BackendEvent) -> None:
        stream = self._streams.get(generation)
        if stream is None:
            self._dropped += 1
        elif isinstance(event, Released):
            self._free(generation, Failed("engine_stream_lost", "the engine let go of the stream"))
        elif not stream.put(event):
            self._dropped += 1
        elif isinstance(event, Finished | Failed):
            self._leave(generation)

    def _free(self, generation: int, unless_over: Failed) -> None:
        """Give the slot back; a stream without a last event gets this one."""
        self._leaving.pop(generation, None)
        self._part(generation)
        self._streams.pop(generation).put(unless_over)

    def _leave(self, generation: int) -> None:
        """The stream is over: from now on the backend has to let go of it."""
        self._part(generation)
        self._leaving.setdefault(generation, trio.current_time())
        self._left.set()

    def _part(self, generation: int) -> None:
        """If it stood beside another stream, that one stands alone now."""
        if (other := self._pairs.pop(generation, None)) is not None:
            del self._pairs[other]

    def _abort(self, generation: int) -> None:
        stream = self._streams.get(generation)
        if stream is not None and stream.backend is not None:
            self._leave(generation)
            stream.backend.abort()

    # --- The backend's life ------------------------------------------------------------------

    async def run(self) -> None:
        """Keep an engine alive until cancelled."""
        backoff = limits.ENGINE_RESTART_FIRST_S
        while True:
            self._ready_at = math.inf
            try:
                await self._live()
            except* Exception as group:  # its causes are many, the answer is one: a new life
                self._deaths += 1
                if trio.current_time() - self._ready_at >= limits.ENGINE_STABLE_S:
                    backoff = limits.ENGINE_RESTART_FIRST_S
                log.error("engine.died", error=describe(group), retry_in_s=backoff)  # noqa: TRY400
            await trio.sleep(backoff)
            backoff = min(2 * backoff, limits.ENGINE_RESTART_MAX_S)

    async def _live(self) -> None:
        """One life of a backend; always ends in an exception."""
        backend = self._make_backend()
        async with trio.open_nursery() as nursery:
            info = await nursery.start(self._host, backend)
            self._backend, self._info = backend, info
            self._ready_at = trio.current_time()
            self._starts += 1
            self._became_ready.set()
            log.info("engine.ready", engine=info.name, model=info.model, slots=info.slots)
            if isinstance(backend, Mortal):
                nursery.start_soon(self._mourn, backend.dead)
            try:
                await self._watch_releases()
            finally:  # before the backend is waited for, which may take its time to stop
                self._bury()

    @staticmethod
    async def _host(backend: Backend, *, task_status: trio.TaskStatus[EngineInfo]) -> None:
        await backend.run(task_status=task_status)
        raise EngineDiedError("the engine stopped by itself")

    @staticmethod
    async def _mourn(dead: trio.Event) -> None:
        await dead.wait()
        raise EngineDiedError("the engine is dead")

    def _bury(self) -> None:
        self._backend = self._info = None
        self._became_ready = trio.Event()
        for generation in list(self._streams):
            self._free(generation, Failed("engine_lost", "the engine died and is restarted"))

    async def _watch_releases(self) -> None:
        """Raise when the backend holds on to a stream that is over."""
        while True:
            while self._leaving:
                oldest, since = next(iter(self._leaving.items()))
                due = since + limits.ENGINE_RELEASE_S
                await trio.sleep_until(due)
                if stood_still(due):
                    await trio.sleep(limits.STANDSTILL_S)
                if oldest in self._leaving:
                    raise EngineStuckError(
                        f"a slot is still held {limits.ENGINE_RELEASE_S:g} s after its stream ended"
                    )
            self._left = trio.Event()
            await self._left.wait()
