"""What the tests of the embedded engine share: a running backend, a recording stream, processes."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from voxtral_actors import limits
from voxtral_actors.engine.port import BackendEvent, Released, StreamSpec, Text
from voxtral_actors.engine.sphinx import SphinxBackend

CHUNK = limits.SAMPLE_RATE * limits.BYTES_PER_SAMPLE * 80 // 1000
SECOND = bytes(limits.SAMPLE_RATE * limits.BYTES_PER_SAMPLE)


def children() -> set[int]:
    """The child processes of this one, zombies included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # it ended meanwhile
            continue
        if (parent := re.search(r"\) \S (\d+)", text)) and int(parent[1]) == os.getpid():
            found.add(int(stat.parent.name))
    return found


async def ended(pid: int) -> None:
    """Wait for the end of any process."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)


class Recorded:
    """One stream and all that was delivered for it."""

    def __init__(self, backend: SphinxBackend) -> None:
        self.events: list[BackendEvent] = []
        self._news = trio.Event()
        self.stream = backend.open(StreamSpec("test"), self._deliver)

    def _deliver(self, event: BackendEvent) -> None:
        assert Released() not in self.events
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    def feed(self, pcm: bytes) -> None:
        """As a client sends it: 80 ms at a time, the last piece of any length."""
        for start in range(0, len(pcm), CHUNK):
            self.stream.feed(pcm[start : start + CHUNK])

    async def until(self, kind: type[BackendEvent]) -> None:
        while not any(isinstance(event, kind) for event in self.events):
            await self._news.wait()

    async def all(self) -> list[BackendEvent]:
        """Everything up to `Released`, without it."""
        await self.until(Released)
        return self.events[:-1]

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Text)]


@asynccontextmanager
async def running(backend: SphinxBackend) -> AsyncIterator[SphinxBackend]:
    """The backend, ready; it is cancelled at the end and must leave nothing behind."""
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: backend.run(task_status=task_status))
        yield backend
        nursery.cancel_scope.cancel()
    assert backend.statistics().workers == 0
    assert backend.statistics().streams == 0


def busy_pids(backend: SphinxBackend) -> set[int]:
    return {worker.pid for worker in backend._pool.workers}
