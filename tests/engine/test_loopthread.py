"""The loop thread and what is hosted in it. Threads are real here, and so is time.

Where an order matters, one side is held up by a `threading.Event` that the other one sets.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import structlog
import trio
import trio.testing

from tests.engine.engine_harness import SPEC, engine_threads, until
from tests.engine.scripted import Script, Scripted, ScriptedError, speech
from voxtral_actors import limits
from voxtral_actors.engine.hosted import AudioSource, HostedBackend
from voxtral_actors.engine.loopthread import LoopEndedError, LoopThread, Mailbox
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


@pytest.fixture(autouse=True)
def _no_loop_left() -> Iterator[None]:
    before = engine_threads()
    yield
    gc.collect()  # a loop that nobody closed warns when it goes
    assert engine_threads() == before


# --- The mailbox -----------------------------------------------------------------------------


class Wakes:
    """A wake-up that only counts; the test drains."""

    def __init__(self) -> None:
        self.drains: list[Callable[[], None]] = []
        self.mailbox = Mailbox(self.drains.append)


def test_posts_before_the_other_side_has_looked_ride_along() -> None:
    wakes, heard = Wakes(), list[int]()
    for number in range(100):
        wakes.mailbox.put(heard.append, number)
    assert len(wakes.drains) == 1

    wakes.mailbox.drain()
    assert heard == list(range(100))

    wakes.mailbox.put(heard.append, 100)
    assert len(wakes.drains) == 2


def test_a_drain_does_not_run_for_ever() -> None:
    """A busy side must not keep the other one from everything else."""
    wakes, rounds = Wakes(), list[int]()

    def again() -> None:
        rounds.append(len(wakes.drains))
        wakes.mailbox.put(again)

    wakes.mailbox.put(again)
    for drain in wakes.drains[:1]:
        drain()

    assert rounds == [1]
    assert len(wakes.drains) == 2


def test_a_callback_that_raises_stops_nothing() -> None:
    wakes, heard = Wakes(), list[int]()
    wakes.mailbox.put(int, "no number")
    wakes.mailbox.put(heard.append, 1)
    with structlog.testing.capture_logs() as logs:
        wakes.mailbox.drain()

    assert heard == [1]
    assert [entry["event"] for entry in logs] == ["loopthread.callback_failed"]


def test_no_post_is_lost_between_two_threads() -> None:
    woken = threading.Semaphore(0)
    mailbox = Mailbox(lambda _: woken.release())
    heard: list[int] = []
    posts = 20_000

    def receive() -> None:
        while len(heard) < posts:
            assert woken.acquire(timeout=LIMIT_S), f"asleep after {len(heard)}"
            mailbox.drain()

    receiver = threading.Thread(target=receive)
    receiver.start()
    for number in range(posts):
        mailbox.put(heard.append, number)
    receiver.join()

    assert heard == list(range(posts))


# --- The two crossings -----------------------------------------------------------------------


async def forever() -> None:
    await asyncio.Event().wait()


async def test_both_directions_keep_the_order() -> None:
    thread = LoopThread()
    there: list[int] = []
    back: list[int] = []
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.run, forever)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(1000):
                thread.to_loop(there.append, number)
                thread.to_loop(thread.to_trio, back.append, number)
            await until(lambda: len(back) == 1000)
            nursery.cancel_scope.cancel()

    assert there == back == list(range(1000))


async def test_posts_to_a_busy_loop_cause_one_wake_up() -> None:
    thread = LoopThread()
    busy, free = threading.Event(), threading.Event()
    heard: list[int] = []
    wake_ups = 0

    async def main() -> None:
        nonlocal wake_ups
        loop = asyncio.get_running_loop()
        post = loop.call_soon_threadsafe

        def counted(callback: Callable[..., object]) -> object:
            nonlocal wake_ups
            wake_ups += 1
            return post(callback)

        assert thread._inbox is not None
        thread._inbox._wake = counted
        busy.set()
        free.wait()
        await forever()

    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.run, main)
            await until(busy.is_set)
            for number in range(100):
                thread.to_loop(heard.append, number)
            free.set()
            await until(lambda: len(heard) == 100)
            assert wake_ups == 1
            nursery.cancel_scope.cancel()


async def test_a_raising_callback_ends_neither_the_run_nor_the_loop() -> None:
    thread = LoopThread()
    heard: list[str] = []
    with structlog.testing.capture_logs() as logs, trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.run, forever)
            await trio.testing.wait_all_tasks_blocked()
            thread.to_loop(int, "no number")
            thread.to_loop(thread.to_trio, int, "no number")
            thread.to_loop(thread.to_trio, heard.append, "still there")
            await until(lambda: bool(heard))
            nursery.cancel_scope.cancel()

    assert [entry["event"] for entry in logs] == ["loopthread.callback_failed"] * 2


async def test_calls_after_the_end_do_nothing() -> None:
    thread = LoopThread()
    heard: list[str] = []

    async def main() -> None:
        pass

    with trio.fail_after(LIMIT_S):
        await thread.run(main)
        thread.to_loop(heard.append, "too late")
        await trio.testing.wait_all_tasks_blocked()

    assert heard == []


def test_calls_before_the_start_are_bugs() -> None:
    thread = LoopThread()
    with pytest.raises(AssertionError, match="before run"):
        thread.to_loop(print)
    with pytest.raises(AssertionError, match="before run"):
        thread.to_trio(print)


def test_one_that_never_runs_holds_nothing() -> None:
    """A backend is made once to see that it can be, and thrown away; a loop would be left open."""
    LoopThread()
    gc.collect()


# --- The end ---------------------------------------------------------------------------------


async def test_cancel_stops_main_and_waits_for_it() -> None:
    cleaned_up = False

    async def main() -> None:
        nonlocal cleaned_up
        try:
            await forever()
        finally:
            await asyncio.sleep(0.05)  # noqa: ASYNC102
            cleaned_up = True

    with trio.fail_after(LIMIT_S), trio.move_on_after(0.05) as scope:
        await LoopThread().run(main)

    assert scope.cancelled_caught
    assert cleaned_up


async def test_cancelled_before_the_loop_runs() -> None:
    with trio.fail_after(LIMIT_S), trio.CancelScope() as scope:
        scope.cancel()
        await LoopThread().run(forever)

    assert scope.cancelled_caught


async def test_cancelled_at_any_moment_of_the_start() -> None:
    for tick in range(20):
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(LoopThread().run, forever)
                for _ in range(tick):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        assert engine_threads() == 0


async def test_cancelled_while_main_ends_by_itself() -> None:
    async def main() -> None:
        await asyncio.sleep(0)

    for tick in range(50):
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(LoopThread().run, main)
                for _ in range(tick):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()


async def raising(error: BaseException) -> None:
    raise error


async def test_what_main_raises_comes_out() -> None:
    with (
        trio.fail_after(LIMIT_S),
        pytest.RaisesGroup(pytest.RaisesExc(ScriptedError, match="ouch")),
    ):
        await LoopThread().run(partial(raising, ScriptedError("ouch")))


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(3), KeyboardInterrupt()])
async def test_what_would_end_the_process_ends_the_loop_only(error: BaseException) -> None:
    """A cancelled future of the engine, or a library that exits, is an engine that died."""
    with trio.fail_after(LIMIT_S), pytest.RaisesGroup(LoopEndedError):
        await LoopThread().run(partial(raising, error))


async def test_what_main_raises_while_it_is_stopped_comes_out() -> None:
    async def main() -> None:
        try:
            await forever()
        finally:
            raise ScriptedError("while stopping")

    with trio.fail_after(LIMIT_S), pytest.RaisesGroup(ScriptedError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(LoopThread().run, main)
            await trio.sleep(0.02)
            nursery.cancel_scope.cancel()


class Stubborn:
    """A `main` that ignores being cancelled until it is let go, and posts all the time."""

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        self.let_go = threading.Event()
        self.posts = 0
        self.heard = 0
        self.ended = threading.Event()

    async def main(self) -> None:
        while not self.let_go.is_set():
            self.posts += 1
            self._thread.to_trio(self._hear)
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:  # noqa: ASYNC103
                continue  # noqa: ASYNC104
        self.ended.set()

    def _hear(self) -> None:
        self.heard += 1


def test_a_main_that_does_not_stop_is_left_behind_and_survives_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "ENGINE_STOP_S", 0.05)
    thread = LoopThread()
    stubborn = Stubborn(thread)

    async def run() -> None:
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(thread.run, stubborn.main)
                await until(lambda: stubborn.heard > 0)
                nursery.cancel_scope.cancel()

    with structlog.testing.capture_logs() as logs:
        trio.run(run)
        assert engine_threads() == 1
        heard, posts = stubborn.heard, stubborn.posts
        trio.run(trio.sleep, 0.05)  # it goes on posting, to a run that is over

        assert stubborn.posts > posts
        assert stubborn.heard == heard
        stubborn.let_go.set()
        assert stubborn.ended.wait(LIMIT_S)
        trio.run(until, lambda: engine_threads() == 0)
    assert [entry["event"] for entry in logs] == ["loopthread.left_behind"]


# --- Hosted streams --------------------------------------------------------------------------


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
