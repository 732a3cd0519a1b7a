"""Streams hosted in the loop thread: each is released once, and none keeps a dead engine alive.

Threads are real here, and so is time. Where an order matters, one side is held up by a
`threading.Event` that the other one sets.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
import structlog
import trio
import trio.testing

from tests.engine.engine_harness import SPEC, engine_threads, until
from tests.engine.scripted import Script, Scripted, ScriptedError, speech
from voxtral_actors import limits
from voxtral_actors.engine.hosted import AudioSource, HostedBackend
from voxtral_actors.engine.loopthread import LoopThread
from voxtral_actors.engine.port import (
    BackendEvent,
    BackendStream,
    EngineEvent,
    EngineInfo,
    Failed,
    Released,
    StreamSpec,
)

LIMIT_S = 10


async def forever() -> None:
    await asyncio.Event().wait()


class Host:
    """A hosted engine whose streams the test opens by hand; all that they deliver is kept."""

    def __init__(self, scripted: Scripted) -> None:
        self.backend = scripted.hosted()
        self.events: list[BackendEvent] = []

    def open(self) -> BackendStream:
        return self.backend.open(SPEC, self.events.append)

    async def run(self, *, task_status: trio.TaskStatus[EngineInfo]) -> None:
        await self.backend.run(task_status=task_status)


async def test_a_stream_aborted_before_its_first_step_is_released_once() -> None:
    host = Host(Scripted())
    all_posted = threading.Event()
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(host.run)
            host.backend.thread.to_loop(all_posted.wait)
            for _ in range(100):
                stream = host.open()
                stream.feed(speech(0.1))
                stream.abort()
                stream.abort()
            all_posted.set()
            await until(lambda: len(host.events) >= 100)
            await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    assert host.events == [Released()] * 100


async def test_a_stream_aborted_at_any_step_is_released_once_and_last() -> None:
    host = Host(Scripted())
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(host.run)
            for tick in range(100):
                host.events.clear()
                stream = host.open()
                stream.feed(speech(1))
                stream.finish()
                for _ in range(tick // 10):
                    await trio.lowlevel.checkpoint()
                stream.abort()
                await until(lambda: Released() in host.events)
                stream.abort()
                await trio.lowlevel.checkpoint()
                assert host.events.index(Released()) == len(host.events) - 1
            nursery.cancel_scope.cancel()


async def test_a_stream_that_raises_fails_alone() -> None:
    host = Host(Scripted(streams=[Script(open_raises=True)]))
    with structlog.testing.capture_logs(), trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(host.run)
            host.open()
            other = host.open()
            await until(lambda: len(host.events) == 2)
            other.abort()
            await until(lambda: len(host.events) == 3)
            nursery.cancel_scope.cancel()

    failed, *released = host.events
    assert isinstance(failed, Failed)
    assert "ScriptedError" in failed.message
    assert released == [Released(), Released()]


async def test_a_stream_that_does_not_end_keeps_no_dead_engine_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "ENGINE_STOP_S", 0.1)

    class Deaf:
        """Streams that ignore one cancellation, as one that waits for a dead engine would."""

        stopped = False

        async def start(self) -> EngineInfo:
            return Script().info

        async def wait_dead(self) -> None:
            await serving.wait()

        async def transcribe(
            self, spec: StreamSpec, audio: AudioSource, emit: Callable[[EngineEvent], None]
        ) -> None:
            serving.set()
            try:
                await forever()
            except asyncio.CancelledError:  # noqa: ASYNC103
                await forever()  # noqa: ASYNC102

        async def stop(self) -> None:
            self.stopped = True

    serving = asyncio.Event()
    engine = Deaf()
    backend = HostedBackend(engine)
    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: backend.run(task_status=task_status))
            backend.open(SPEC, lambda _: None)
    assert engine.stopped


async def test_an_engine_that_blocks_when_it_stops_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "ENGINE_STOP_S", 0.05)
    scripted = Scripted()
    backend = scripted.hosted()
    let_go = threading.Event()

    async def stop() -> None:
        let_go.wait()

    monkeypatch.setattr(backend.engine, "stop", stop)
    with structlog.testing.capture_logs() as logs, trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: backend.run(task_status=task_status))
            scripted.kill()
    assert [entry["event"] for entry in logs] == ["loopthread.left_behind"]
    let_go.set()
    await until(lambda: engine_threads() == 0)


async def test_no_stream_begins_in_an_engine_that_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = Scripted()
    backend = scripted.hosted()
    stopping, go_on = threading.Event(), threading.Event()

    async def stop() -> None:
        stopping.set()
        while not go_on.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    monkeypatch.setattr(backend.engine, "stop", stop)
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: backend.run(task_status=task_status))
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await until(stopping.is_set)
                backend.open(SPEC, lambda _: None).feed(speech(1))
                await trio.sleep(0.01)
                go_on.set()

    assert scripted.streams == []


async def test_an_engine_that_cannot_start_says_why() -> None:
    backend = Scripted(Script(fail_start=1)).hosted()
    with (
        trio.fail_after(LIMIT_S),
        pytest.RaisesGroup(
            pytest.RaisesExc(ScriptedError, match="start 1 fails"), flatten_subgroups=True
        ),
    ):
        async with trio.open_nursery() as nursery:  # noqa: ASYNC112
            await nursery.start(lambda task_status: backend.run(task_status=task_status))


async def test_audio_source_gives_the_chunks_and_then_none_for_ever() -> None:
    got: list[bytes | None] = []

    async def main() -> None:
        source = AudioSource()
        source.put(b"ab")
        source.put(b"cd")
        got.extend([await source.get(), await source.get()])
        asyncio.get_running_loop().call_soon(source.put, b"ef")
        got.append(await source.get())
        asyncio.get_running_loop().call_soon(source.finish)
        got.extend([await source.get(), await source.get()])

    with trio.fail_after(LIMIT_S):
        await LoopThread().run(main)

    assert got == [b"ab", b"cd", b"ef", None, None]
