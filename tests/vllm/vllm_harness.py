"""One vLLM for many tests, and what they ask of it.

A start takes most of a minute on two cores, so the tests share one engine. `SharedVllm` holds it in
an asyncio loop in a thread of its own. A test that is about streams gets a `Visitor`: a backend
like any other, except that its life begins and ends without the engine's. What a test asks of vLLM
itself it runs in the loop, with `call`.

A test that needs an engine's whole life starts one of its own, after `SharedVllm.stop`: two cores
carry one engine at a time.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import attrs
import psutil
import trio

from tests.engine.engine_harness import until
from tests.vllm import sounds, vllm_reference
from voxtral_actors.engine import vllm_processes
from voxtral_actors.engine.hosted import HostedBackend
from voxtral_actors.engine.loopthread import LoopThread
from voxtral_actors.engine.port import EngineInfo
from voxtral_actors.engine.vllm_realtime import VllmEngine
from voxtral_actors.settings import Settings, load

T = TypeVar("T")

START_S = 300
"""Longer than any start on a machine that is worth testing on."""

SETTINGS = {
    "VOXTRAL_API_KEY": "open-sesame-for-tests",
    "MAX_CONCURRENT_CONNECTIONS": "32",
    "VOXTRAL_ENGINE": "vllm",
    "VOXTRAL_TRANSCRIPTION_DELAY_MS": "480",
    "VLLM_ENFORCE_EAGER": "true",
    "VLLM_MAX_MODEL_LEN": "4096",
    "VLLM_MAX_NUM_SEQS": "16",
    # The worker is a process of its own, as where several GPUs share a model: a CPU has it no other
    # way as long as the engine is one too.
    "VLLM_ENGINE_ARGS": '{"dtype": "bfloat16"}',
}
KV_CACHE_GB = "1"


def settings(folder: Path, **env: str) -> Settings:
    """Settings for the tiny model in `folder` on a CPU."""
    # The CPU build has this variable in place of VLLM_GPU_MEMORY_UTILIZATION.
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = KV_CACHE_GB
    return load({**SETTINGS, "VOXTRAL_MODEL_DIR": str(folder), **env})


class SharedVllm:
    """The engine of the whole test session; started when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread: threading.Thread | None = None
        self.said: dict[bytes, str] = {}
        """Once it has been started: utterances, and the text that vLLM's own server hears."""

    def start(self) -> SharedVllm:
        if self._thread is None:
            self._started = threading.Event()
            self._error: BaseException | None = None
            self._thread = threading.Thread(target=self._host, name="shared-vllm", daemon=True)
            self._thread.start()
            assert self._started.wait(START_S), "vLLM did not start"
            if self._error is not None:
                raise self._error
            if not self.said:
                self.said = {pcm: self._reference(pcm) for pcm in sounds.utterances()}
        return self

    def _reference(self, pcm: bytes) -> str:
        llm = self.engine.vllm.llm
        text = self.call(lambda: vllm_reference.transcribe(llm, pcm, 2560)).text
        assert text
        return text

    def stop(self) -> None:
        """A second call, and one before any start, does nothing."""
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self._over.set)
            self._thread.join(30)
            assert not self._thread.is_alive(), "vLLM did not stop"
            self._thread = None

    def call(self, make: Callable[[], Coroutine[Any, Any, T]], timeout_s: float = 120) -> T:
        """Run a coroutine in the engine's loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(make(), self.loop).result(timeout_s)

    def _host(self) -> None:
        try:
            asyncio.run(self._live())
        except Exception as error:  # told in the thread that waits
            self._error = error
            self._started.set()

    async def _live(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self.engine = VllmEngine(settings(self._folder))
        try:
            self.info = await self.engine.start()
            self._started.set()
            await self._over.wait()
        finally:
            await self.engine.stop()  # noqa: ASYNC102 - asyncio, and bounded in there


class _GuestThread(LoopThread):
    """A loop thread in a loop that somebody else runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._token: trio.lowlevel.TrioToken

    def to_loop(self, callback: Callable[..., object], *args: Any) -> None:
        self._loop.call_soon_threadsafe(callback, *args)

    def to_trio(self, callback: Callable[..., object], *args: Any) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(callback, *args)

    async def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._token = trio.lowlevel.current_trio_token()
        over = trio.Event()

        async def guest() -> None:
            try:
                await main()
            finally:
                self.to_trio(over.set)

        asyncio.run_coroutine_threadsafe(self._begin(guest), self._loop)
        try:
            await trio.sleep_forever()
        finally:
            self.to_loop(self._cancel)
            with trio.move_on_after(10, shield=True):
                await over.wait()

    async def _begin(self, guest: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.create_task(guest())

    def _cancel(self) -> None:
        self._task.cancel()


class _GuestEngine:
    """An engine that was running before this life of it, and is after it."""

    def __init__(self, shared: SharedVllm, slots: int) -> None:
        self._info = attrs.evolve(shared.info, slots=slots)
        self.transcribe = shared.engine.transcribe

    async def start(self) -> EngineInfo:
        return self._info

    async def wait_dead(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        pass


class Visitor(HostedBackend):
    """The shared engine as a backend with a life of its own: its streams end with it."""

    def __init__(self, shared: SharedVllm, slots: int) -> None:
        super().__init__(_GuestEngine(shared, slots))
        self.thread = _GuestThread(shared.loop)


def engine_core(parent: int | None = None) -> int:
    """The number of the one EngineCore process that a server process has started."""
    children = psutil.Process(parent).children()
    (found,) = (child for child in children if "EngineCore" in " ".join(child.cmdline()))
    return int(found.pid)


def family(parent: int | None = None) -> list[psutil.Process]:
    """The processes that a server process has started, and theirs.

    Without Python's resource tracker, which lives as long as the server.
    """
    started = psutil.Process(parent).children(recursive=True)
    return [process for process in started if "resource_tracker" not in str(process.cmdline())]


def shared_memory(processes: list[psutil.Process]) -> set[Path]:
    """The shared memory of these processes; other engines on this machine have theirs."""
    names = set[str]().union(*(vllm_processes.shared_memory(one.pid) for one in processes))
    return {Path("/dev/shm") / name for name in names}  # noqa: S108 - looks only


async def nothing_left(processes: list[psutil.Process], memory: set[Path]) -> None:
    """All of them are gone, or will be in a moment."""

    def alive(process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess):
            return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
        return False

    with trio.fail_after(5):
        await until(lambda: not any(map(alive, processes)))
        await until(lambda: not any(path.exists() for path in memory))
