"""A backend whose engine is written for asyncio: it lives in a loop thread, unseen from outside.

`AsyncioEngine` is what such an engine implements; all of it runs in the loop's thread. The backend
gives each stream an asyncio task there. Cancelling that task is how a stream is aborted, and the
end of the task is when its slot is free.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import attrs
import structlog
import trio

from voxtral_actors import limits
from voxtral_actors.engine.loopthread import LoopThread
from voxtral_actors.engine.port import (
    BackendEvent,
    Deliver,
    EngineEvent,
    EngineInfo,
    Failed,
    Released,
    StreamSpec,
)

log = structlog.get_logger(__name__)


class AudioSource:
    """The audio of one stream, in the loop's thread: chunks as they came, then None for ever."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._complete = False
        self._arrived = asyncio.Event()

    def put(self, pcm: bytes) -> None:
        self._chunks.append(pcm)
        self._arrived.set()

    def finish(self) -> None:
        self._complete = True
        self._arrived.set()

    async def get(self) -> bytes | None:
        """The next chunk, or None when the client has finalised and there is no more."""
        while not self._chunks:
            if self._complete:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._chunks.popleft()


class AsyncioEngine(Protocol):
    """An engine of the asyncio world; every method runs in the loop's thread."""

    async def start(self) -> EngineInfo:
        """Load what has to be loaded; raises when it cannot be."""

    async def wait_dead(self) -> None:
        """Return or raise when the engine is dead."""

    async def transcribe(
        self, spec: StreamSpec, audio: AudioSource, emit: Callable[[EngineEvent], None]
    ) -> None:
        """Serve one stream to its end, `Finished` or `Failed` included.

        When it returns, raises, or is cancelled and has cleaned up, nothing of the stream is left.
        """

    async def stop(self) -> None:
        """Let go of everything; called once, when no stream is left."""


class HostedStream:
    """The trio side of one stream (`port.BackendStream`)."""

    def __init__(self, backend: HostedBackend, spec: StreamSpec, deliver: Deliver) -> None:
        self._thread = backend.thread
        self._backend = backend
        self._spec = spec
        self._deliver = deliver
        self._audio: AudioSource | None = None  # from here on: touched in the loop only
        self._task: asyncio.Task[None] | None = None
        self._thread.to_loop(self._begin)

    def feed(self, pcm: bytes) -> None:
        self._thread.to_loop(self._feed, pcm)

    def finish(self) -> None:
        self._thread.to_loop(self._finish)

    def abort(self) -> None:
        self._thread.to_loop(self._abort)

    # --- In the loop -------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._backend.ending:
            return
        self._audio = AudioSource()
        self._task = self._backend.spawn(self._serve(self._audio))
        # Not in a `finally` of the task: one that is cancelled before its first step runs nothing.
        self._task.add_done_callback(self._end)

    def _feed(self, pcm: bytes) -> None:
        if self._audio is not None:
            self._audio.put(pcm)

    def _finish(self) -> None:
        if self._audio is not None:
            self._audio.finish()

    def _abort(self) -> None:
        if self._task is not None:
            self._task.cancel("the stream is aborted")

    def _end(self, _: asyncio.Task[None]) -> None:
        if not self._backend.ending:  # else the actor ends the stream, and says what of
            self._emit(Released())

    def _emit(self, event: BackendEvent) -> None:
        self._thread.to_trio(self._deliver, event)

    async def _serve(self, audio: AudioSource) -> None:
        try:
            await self._backend.engine.transcribe(self._spec, audio, self._emit)
        except Exception as error:  # whatever a stream died of, it is this stream's end only
            log.exception("engine.stream_failed", stream=self._spec.label)
            self._emit(Failed("engine_stream_lost", f"{type(error).__name__}: {error}"))


@attrs.frozen
class HostedStatistics:
    """A moment of the backend; the first two are callbacks that wait for the other thread."""

    to_loop: int
    to_trio: int
    streams: int
    """Streams whose task in the loop is not over."""


class HostedBackend:
    """`port.Backend` over an `AsyncioEngine`."""

    def __init__(self, engine: AsyncioEngine) -> None:
        self.engine = engine
        self.thread = LoopThread()
        self.ending = False  # in the loop: no stream may begin any more
        self.dead = trio.Event()
        self._life = trio.CancelScope()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, *, task_status: trio.TaskStatus[EngineInfo]) -> None:
        with self._life:
            await self.thread.run(lambda: self._main(task_status.started))

    def statistics(self) -> HostedStatistics:
        crossing = self.thread.statistics()
        return HostedStatistics(crossing.to_loop, crossing.to_trio, len(self._tasks))

    def open(self, spec: StreamSpec, deliver: Deliver) -> HostedStream:
        return HostedStream(self, spec, deliver)

    def spawn(self, stream: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a stream's task; the backend holds it until it ends."""
        task = asyncio.ensure_future(stream)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _main(self, started: Callable[[EngineInfo], None]) -> None:
        try:
            info = await self.engine.start()
            self.thread.to_trio(started, info)
            await self.engine.wait_dead()
        finally:  # awaits in it, and is bounded from outside by `_limit_end` and the loop thread
            self.ending = True
            self.thread.to_trio(self._limit_end)
            for task in self._tasks:
                task.cancel("the engine stops")
            try:
                if self._tasks:  # half of the time for them, the rest for the engine
                    await asyncio.wait(  # noqa: ASYNC102
                        self._tasks, timeout=limits.ENGINE_STOP_S / 2
                    )
            finally:  # who hears that the engine is dead may cancel this while it waits
                await self.engine.stop()  # noqa: ASYNC102

    def _limit_end(self) -> None:
        """In trio: a dead engine that cannot even end must not pass for one that serves."""
        self.dead.set()
        self._life.deadline = trio.current_time() + limits.ENGINE_STOP_S
