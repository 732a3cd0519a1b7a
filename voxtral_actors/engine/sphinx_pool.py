"""The worker processes of the embedded engine: started, kept warm, handed out, killed, reaped.

A worker is disposable: it serves one stream, and whatever ends the stream ends in `retire`: a
SIGKILL, which a stopped or hung process cannot resist, and a bounded wait. Who starts or takes a
worker retires it, whatever happens to it.

Workers take half a second to load, so some are kept warm. A refiller starts a worker and holds it
out over a channel without a buffer until a stream takes it; then it starts the next. So the number
of refillers is the number of warm workers, and also of those that start at the same time, and
streams that find none wait in line.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import attrs
import structlog
import trio

from voxtral_actors.engine import sphinx_limits
from voxtral_actors.engine import sphinx_worker as wire

log = structlog.get_logger(__name__)

COMMAND: Final = (sys.executable, "-P", "-m", wire.MODULE)
"""-P: whatever lies in the working folder is not imported."""


class WorkerLostError(Exception):
    """A worker could not start, died, or says what it must not say."""


@attrs.frozen
class WorkerEvent:
    kind: bytes
    consumed: int
    text: str


class Worker:
    """One worker process and its framing; see `sphinx_worker`."""

    def __init__(self, process: trio.Process) -> None:
        assert isinstance(process.stdin, trio.lowlevel.FdStream)  # noqa: S101 - both are pipes
        assert isinstance(process.stdout, trio.lowlevel.FdStream)  # noqa: S101
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._received = bytearray()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, piece: bytes) -> None:
        """Send audio; nothing at all says that no more comes."""
        await self._stdin.send_all(wire.LENGTH.pack(len(piece)) + piece)

    async def receive(self) -> WorkerEvent:
        """The next event.

        Raises:
            WorkerLostError: the worker is gone, or has sent what is no event.
        """
        kind, consumed, length = wire.HEADER.unpack(await self._read(wire.HEADER.size))
        if kind not in wire.KINDS or length > sphinx_limits.MAX_TEXT_BYTES:
            raise WorkerLostError("the recogniser process sent garbage")
        try:
            text = (await self._read(length)).decode()
        except UnicodeDecodeError as error:
            raise WorkerLostError("the recogniser process sent garbage") from error
        return WorkerEvent(kind, consumed, text)

    async def wait(self) -> None:
        """Wait for the end of the process, and reap it."""
        await self._process.wait()

    async def retire(self) -> None:
        """Kill and reap; bounded, and not to be cancelled."""
        self._process.kill()
        self._stdin.close()
        self._stdout.close()
        with trio.move_on_after(sphinx_limits.REAP_S, shield=True):
            await self._process.wait()

    async def _read(self, count: int) -> bytes:
        while len(self._received) < count:
            try:
                data = await self._stdout.receive_some()
            except trio.BrokenResourceError as error:
                raise WorkerLostError("the recogniser process cannot be read") from error
            if not data:
                raise WorkerLostError("the recogniser process died")
            self._received += data
        data = bytes(self._received[:count])
        del self._received[:count]
        return data


class WorkerPool:
    """See the module."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = command
        self.workers: set[Worker] = set()
        """All that are not reaped yet, those that are still loading among them."""
        self.warm = 0
        """Those that wait for a stream."""
        # What is passed is a warm worker, or why one could not be had.
        self._offers, self._takes = trio.open_memory_channel[Worker | WorkerLostError](0)

    async def run(self, first: Worker) -> None:
        """Keep workers warm, the first of them started already, until cancelled."""
        with self._offers, self._takes:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._refill, first)
                for _ in range(sphinx_limits.WARM - 1):
                    nursery.start_soon(self._refill, None)

    async def take(self) -> Worker:
        """The next warm worker; the caller retires it.

        Raises:
            WorkerLostError: none could be started.
        """
        offer = await self._takes.receive()
        if isinstance(offer, WorkerLostError):
            raise offer
        return offer

    async def _refill(self, worker: Worker | None) -> None:
        """Keep one worker warm; see the module."""
        while True:
            try:
                given = await self._offer(worker or await self.start())
            except WorkerLostError as error:
                log.warning("engine.worker_not_started", error=str(error))
                with suppress(trio.WouldBlock):  # nobody waits
                    self._offers.send_nowait(error)
                given = False
            worker = None
            if not given:
                await trio.sleep(sphinx_limits.RETRY_S)

    async def start(self) -> Worker:
        """A worker that has loaded its model.

        Raises:
            WorkerLostError: it could not be started.
        """
        # A process group of its own: Ctrl-C must not reach a worker before it ignores it.
        pipe = subprocess.PIPE
        try:
            process = await trio.lowlevel.open_process(
                self._command, stdin=pipe, stdout=pipe, process_group=0
            )
        except OSError as error:
            raise WorkerLostError(f"the recogniser process cannot be started: {error}") from error
        worker = Worker(process)
        self.workers.add(worker)
        try:
            with trio.fail_after(sphinx_limits.START_S):
                if (await worker.receive()).kind != wire.READY:
                    raise WorkerLostError("the recogniser process sent garbage")
        except BaseException as error:  # cancellation too: whoever starts a worker ends it
            await self.retire(worker)  # noqa: ASYNC102 - shielded and bounded in there
            if isinstance(error, trio.TooSlowError):
                problem = "the recogniser process does not get ready"
                raise WorkerLostError(problem) from error  # noqa: ASYNC104 - no Cancelled is one
            raise
        return worker

    async def _offer(self, worker: Worker) -> bool:
        """Hold a warm worker out until a stream takes it; False if it died first."""
        given = False

        async def watch() -> None:
            await worker.wait()
            nursery.cancel_scope.cancel(reason="the worker died")

        self.warm += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await self._offers.send(worker)
                given = True
                nursery.cancel_scope.cancel(reason="a stream has taken the worker")
        finally:
            self.warm -= 1
            if not given:
                await self.retire(worker)  # noqa: ASYNC102 - shielded and bounded in there
        return given

    async def retire(self, worker: Worker) -> None:
        await worker.retire()
        self.workers.discard(worker)
