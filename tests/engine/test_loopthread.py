"""The loop thread and its two crossings. Threads are real here, and so is time.

Where an order matters, one side is held up by a `threading.Event` that the other one sets.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest
import structlog
import trio
import trio.testing

from tests.engine.engine_harness import engine_threads, until
from tests.engine.scripted import ScriptedError
from voxtral_actors import limits
from voxtral_actors.engine.loopthread import LoopEndedError, LoopThread, Mailbox, new_loop

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


# --- The loop --------------------------------------------------------------------------------


def test_the_loop_is_one_of_uvloop_where_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = object()
    there = SimpleNamespace(new_event_loop=lambda: theirs)
    monkeypatch.setitem(sys.modules, "uvloop", cast("ModuleType", there))
    assert new_loop() is theirs

    monkeypatch.setitem(sys.modules, "uvloop", cast("ModuleType", None))  # not installed
    with closing(new_loop()) as loop:
        assert isinstance(loop, asyncio.SelectorEventLoop)


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
    entered = threading.Event()

    async def main() -> None:
        try:
            entered.set()
            await forever()
        finally:
            raise ScriptedError("while stopping")

    with trio.fail_after(LIMIT_S), pytest.RaisesGroup(ScriptedError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(LoopThread().run, main)
            await until(entered.is_set)
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
