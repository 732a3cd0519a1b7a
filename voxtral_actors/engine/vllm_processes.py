"""The processes that vLLM starts, and how neither they nor their shared memory outlive the engine.

vLLM's constructor blocks for minutes and cannot be stopped, and its processes are not daemons, so
Python would wait for them at exit. So it runs in a thread of its own, and whoever does not want its
result any more kills its processes, and it fails.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import structlog

from voxtral_actors.limits import VLLM_KILL_S

log = structlog.get_logger(__name__)

T = TypeVar("T")

_MEMORY = Path("/dev/shm")  # noqa: S108 - POSIX shared memory, where Linux has it


class Brood:
    """Processes that were started since this object was made, with all their descendants.

    Until the next one is made: a life that is slow to end must not take those of the next one for
    its own.
    """

    _latest: ClassVar[Brood | None] = None

    def __init__(self) -> None:
        if Brood._latest is not None:
            Brood._latest._close()
        Brood._latest = self
        self._seen: dict[int, Any] = {}
        self._memory: set[str] = set()
        self._closed = False
        self._before = _active()

    def _close(self) -> None:
        self.look()
        self._closed = True

    def look(self) -> list[Any]:
        """Those that are alive, as `psutil.Process`.

        Once while all is well is needed: when a process is dead, nobody finds its descendants any
        more, nor the memory that they shared.
        """
        import psutil

        for pid in self._children():
            with suppress(psutil.NoSuchProcess):
                parent = psutil.Process(pid)
                for process in (parent, *parent.children(recursive=True)):
                    self._seen.setdefault(process.pid, process)
        # A copy, for an end that is slow runs beside the start of the next life.
        alive = [process for process in list(self._seen.values()) if _alive(process)]
        for process in alive:
            self._memory |= shared_memory(process.pid)
        return alive

    def _children(self) -> set[int]:
        active = _active()
        return active & self._seen.keys() if self._closed else active - self._before

    def kill(self) -> None:
        """Kill all of them, wait until they are gone, and take away what they left. Blocks."""
        import psutil

        deadline = time.monotonic() + VLLM_KILL_S
        # A dead child is one of ours until its last thread has ended and Python has reaped it.
        while (alive := self.look()) or self._children():
            for process in alive:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            if time.monotonic() > deadline:
                log.error("vllm.processes_left", pids=[process.pid for process in alive])
                return
            time.sleep(0.02)
        for name in self._memory - shared_memory(os.getpid()):
            with suppress(FileNotFoundError):
                (_MEMORY / name).unlink()
                # Python keeps a list of its own, to clean up at exit.
                if name.startswith("psm_"):
                    resource_tracker.unregister(f"/{name}", "shared_memory")
                else:
                    resource_tracker.unregister(f"/{name.removeprefix('sem.')}", "semaphore")
        self._memory.clear()

    def kill_until_over(self, thread: threading.Thread) -> None:
        """Kill what a thread starts for as long as it runs. Blocks."""
        while thread.is_alive():
            self.kill()
            thread.join(0.05)
        self.kill()


def _active() -> set[int]:
    """The children of this process; those that have ended are reaped and not among them."""
    return {child.pid for child in multiprocessing.active_children() if child.pid}


def shared_memory(pid: int) -> set[str]:
    """Names of the shared memory and semaphores, as Python makes them, that a process has.

    Found by their inodes: a semaphore is made under another name than the one it is known by.
    """
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
        mapped = set(re.findall(rf" (\d+) +{_MEMORY}/", maps))
        with os.scandir(_MEMORY) as entries:
            return {
                entry.name
                for entry in entries
                if entry.name.startswith(("psm_", "sem.mp-")) and str(entry.inode()) in mapped
            }
    except OSError:
        return set()


def _alive(process: Any) -> bool:
    import psutil

    with suppress(psutil.NoSuchProcess):
        # `is_running` tells the process from another one that got its number.
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


class Worker(Generic[T]):
    """One blocking call in a daemon thread, awaited in the loop."""

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.result: asyncio.Future[T] = self._loop.create_future()
        self.thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self.thread.start()

    def _run(self, work: Callable[[], T]) -> None:
        try:
            result = work()
        except Exception as error:
            log.debug("vllm.worker_failed", thread=self.thread.name, error=repr(error))
            self._tell(self.result.set_exception, error)
        else:
            self._tell(self.result.set_result, result)

    def _tell(self, setter: Callable[..., None], value: object) -> None:
        def deliver() -> None:
            if not self.result.done():
                setter(value)

        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(deliver)
