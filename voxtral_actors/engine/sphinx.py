"""The embedded engine: pocketsphinx, English, on any CPU, one worker process per stream.

Each stream is one task in the backend's nursery: it takes a warm worker from the pool, sends it the
audio, delivers what it says, and retires it. `abort` cancels that task, so it works on a worker in
any state and on a stream that still waits for one. Audio fed meanwhile is queued in the stream; the
connection stops feeding when too much of it is not consumed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import attrs
import structlog
import trio

from voxtral_actors import limits
from voxtral_actors.engine import sphinx_limits
from voxtral_actors.engine import sphinx_worker as wire
from voxtral_actors.engine.port import (
    Deliver,
    EngineInfo,
    Failed,
    Finished,
    Progress,
    Released,
    StreamSpec,
    Text,
    spare_slots,
)
from voxtral_actors.engine.registry import EngineSetupError
from voxtral_actors.engine.sphinx_pool import COMMAND, Worker, WorkerLostError, WorkerPool
from voxtral_actors.settings import Settings
from voxtral_actors.utterance.timing import Timing

log = structlog.get_logger(__name__)

NOTE = "Embedded CPU recogniser: English only, accuracy of its age; for production use vllm."

JITTER_S: Final = 1.0
"""How far the end of a segment, which is where its text comes, may move between two hearings of
the same audio. Much more, and phrases that repeat themselves cannot be told apart."""

_SEGMENT_S = (sphinx_limits.SEGMENT_MAX_FRAMES + sphinx_limits.VOTES) * sphinx_limits.FRAME_S
TIMING = Timing(
    lag=round(_SEGMENT_S * limits.SAMPLE_RATE),
    jitter=round(JITTER_S * limits.SAMPLE_RATE),
)
"""It says nothing before the end of a segment, and then all of it."""


@attrs.frozen
class SphinxStatistics:
    """A moment of the backend."""

    workers: int
    """Processes alive, those that are still loading among them."""
    warm: int
    """Workers that wait for a stream."""
    streams: int
    """Streams not released yet."""


class SphinxStream:
    """The audio of one stream that no worker has taken yet (`port.BackendStream`)."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.fed = 0
        self.finished = False
        self._closed = False
        self._pending = bytearray()
        self._news = trio.Event()

    def feed(self, pcm: bytes) -> None:
        if not self.finished and not self._closed:
            self._pending += pcm
            self.fed += len(pcm) // limits.BYTES_PER_SAMPLE
            self._news.set()

    def finish(self) -> None:
        self.finished = True
        self._news.set()

    def abort(self) -> None:
        self.scope.cancel(reason="the stream is aborted")
        self.close()

    def close(self) -> None:
        """The stream is over: forget its audio and take no more."""
        self._closed = True
        self._pending.clear()

    async def take(self) -> bytes:
        """The next piece of audio; empty when all of a finished stream is taken."""
        while not self._pending and not self.finished:
            self._news = trio.Event()
            await self._news.wait()
        piece = bytes(self._pending[: sphinx_limits.PIECE_BYTES])
        del self._pending[: sphinx_limits.PIECE_BYTES]
        return piece


class SphinxBackend:
    """See the module (`port.Backend`)."""

    def __init__(self, slots: int, command: Sequence[str] = COMMAND) -> None:
        self._slots = slots
        self._streams = 0
        self._pool = WorkerPool(command)
        self._nursery: trio.Nursery | None = None

    def statistics(self) -> SphinxStatistics:
        return SphinxStatistics(len(self._pool.workers), self._pool.warm, self._streams)

    async def run(self, *, task_status: trio.TaskStatus[EngineInfo]) -> None:
        first = await self._pool.start()  # outside the nursery: its error is raised as it is
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pool.run, first)
            self._nursery = nursery
            name, model, spare = "sphinx", "pocketsphinx-en-us", spare_slots(self._slots)
            task_status.started(
                EngineInfo(name, model, self._slots, 0, NOTE, timing=TIMING, spare=spare)
            )

    def open(self, spec: StreamSpec, deliver: Deliver) -> SphinxStream:
        assert self._nursery is not None  # noqa: S101 - the contract: open is called while run runs
        stream = SphinxStream()
        self._streams += 1
        self._nursery.start_soon(self._serve, spec, stream, deliver)
        return stream

    async def _serve(self, spec: StreamSpec, stream: SphinxStream, deliver: Deliver) -> None:
        """One stream, from the wait for a worker until that worker is gone."""
        try:
            with stream.scope:
                try:
                    await self._transcribe(stream, deliver)
                except WorkerLostError as error:
                    log.warning("engine.worker_lost", stream=spec.label, error=str(error))
                    deliver(Failed("engine_stream_lost", str(error)))
        finally:
            stream.close()
            self._streams -= 1
        deliver(Released())

    async def _transcribe(self, stream: SphinxStream, deliver: Deliver) -> None:
        worker = await self._pool.take()
        lost: WorkerLostError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pump, stream, worker)
                try:
                    await _relay(stream, worker, deliver)
                except WorkerLostError as error:
                    lost = error  # raised outside, where it is not wrapped in a group
                nursery.cancel_scope.cancel(reason="the worker has no more to say")
        finally:
            await self._pool.retire(worker)  # noqa: ASYNC102 - shielded and bounded in there
        if lost is not None:
            raise lost


async def _pump(stream: SphinxStream, worker: Worker) -> None:
    with suppress(trio.BrokenResourceError):  # it died: `_relay` sees that too, and says so
        while piece := await stream.take():
            await worker.send(piece)
        await worker.send(b"")


async def _relay(stream: SphinxStream, worker: Worker, deliver: Deliver) -> None:
    """Deliver what the worker says, until it has said the last of it."""
    consumed = 0
    while True:
        event = await worker.receive()
        if not consumed <= event.consumed <= stream.fed:
            raise WorkerLostError("the recogniser process has lost count of the audio")
        consumed = event.consumed
        if event.kind == wire.TEXT and event.text:
            deliver(Text(event.text, consumed))
        elif event.kind == wire.PROGRESS:
            deliver(Progress(consumed))
        elif event.kind == wire.FINISHED and stream.finished and consumed == stream.fed:
            deliver(Finished(consumed))
            return
        else:
            raise WorkerLostError("the recogniser process sent garbage")


def create(settings: Settings) -> SphinxBackend:
    """Entry point of the engine.

    Raises:
        EngineSetupError: pocketsphinx is not installed.
    """
    if importlib.util.find_spec("pocketsphinx") is None:
        raise EngineSetupError("it needs pocketsphinx: pip install 'voxtral-actors[sphinx]'")
    return SphinxBackend(settings.max_connections * sphinx_limits.SLOTS_A_CONNECTION)
