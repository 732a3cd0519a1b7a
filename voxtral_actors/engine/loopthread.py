"""An asyncio loop in a thread of its own, and the two crossings to and from trio; nothing else.

Rules:

1. `LoopThread.run` lives in a trio nursery. Cancelling it asks the loop's `main` to stop and waits
   for the thread, `limits.ENGINE_STOP_S` at most; then the (daemon) thread is left behind.
2. `to_loop` is called in the trio thread and runs its callback in the loop; `to_trio` is called in
   the loop's thread and runs its callback in trio. Both return at once and keep the order.
3. Each direction is one mailbox. The first item wakes the other side, and those that come before it
   has looked ride along: a hundred sessions cost one wake-up a tick and not a hundred.
4. A callback that raises is logged and dropped: an exception in trio's entry queue would be the end
   of the whole run, one in the loop's would pass unseen.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import attrs
import structlog
import trio

from voxtral_actors import limits

log = structlog.get_logger(__name__)

THREAD_NAME = "engine-loop"


class LoopEndedError(Exception):
    """Something in the loop was cancelled from inside or wanted to end the process."""


@attrs.frozen
class LoopThreadStatistics:
    """Callbacks that wait on either side for the other thread to look."""

    to_loop: int
    to_trio: int


class Mailbox:
    """Callbacks for another thread; `wake` schedules `drain` there, and fails when it is gone."""

    def __init__(self, wake: Callable[[Callable[[], None]], object]) -> None:
        self._wake = wake
        self._items: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._awake = False

    def put(self, callback: Callable[..., object], *args: Any) -> None:
        """Add a callback. Append first, look second: `drain` does the same in reverse, so that an
        item is either seen by the drain under way or wakes a new one."""
        self._items.append((callback, args))
        if not self._awake:
            self._awake = True
            try:  # noqa: SIM105 - `suppress` is three calls, and this comes with every frame
                self._wake(self.drain)
            except RuntimeError:
                # It is a closed loop, or (RunFinishedError is one too) a trio run that is over.
                # Nobody is left over there, and what was meant for it has lost its meaning.
                pass

    def __len__(self) -> int:
        return len(self._items)

    def drain(self) -> None:
        """Run what is there, in the thread that it was meant for.

        What comes meanwhile wakes another drain, so that a busy side cannot keep this one from the
        rest of its work.
        """
        self._awake = False
        for _ in range(len(self._items)):
            callback, args = self._items.popleft()
            try:
                callback(*args)
            except Exception:  # rule 4
                log.exception("loopthread.callback_failed")


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop's where there is one, and vLLM brings it along: a step of a live stream
    costs the thread 10 to 15 % less."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class LoopThread:
    """One asyncio loop, used for one `run`."""

    def __init__(self) -> None:
        self._inbox: Mailbox | None = None
        self._outbox: Mailbox | None = None
        self._main: asyncio.Task[None] | None = None
        self._stopping = False

    def to_loop(self, callback: Callable[..., object], *args: Any) -> None:
        """From trio: run a callback in the loop, soon."""
        assert self._inbox is not None, "to_loop before run"  # noqa: S101 - a bug of ours
        self._inbox.put(callback, *args)

    def to_trio(self, callback: Callable[..., object], *args: Any) -> None:
        """From the loop: run a callback in trio, soon."""
        assert self._outbox is not None, "to_trio before run"  # noqa: S101 - a bug of ours
        self._outbox.put(callback, *args)

    def statistics(self) -> LoopThreadStatistics:
        return LoopThreadStatistics(len(self._inbox or ()), len(self._outbox or ()))

    async def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `main()` in the loop until it returns, raises, or this is cancelled.

        Raises:
            ExceptionGroup: of what `main` raised, or of a `LoopEndedError`.
        """
        loop = new_loop()
        self._inbox = Mailbox(loop.call_soon_threadsafe)
        self._outbox = Mailbox(trio.lowlevel.current_trio_token().run_sync_soon)
        async with trio.open_nursery() as nursery:
            hold = trio.CancelScope(shield=True)
            nursery.start_soon(self._stop_when_cancelled, hold)
            with hold:
                await trio.to_thread.run_sync(
                    self._thread,
                    loop,
                    main,
                    thread_name=THREAD_NAME,
                    abandon_on_cancel=True,
                    limiter=trio.CapacityLimiter(1),
                )
            if hold.cancelled_caught:
                log.error("loopthread.left_behind", waited_s=limits.ENGINE_STOP_S)
            nursery.cancel_scope.cancel(reason="the loop has ended")

    async def _stop_when_cancelled(self, hold: trio.CancelScope) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.to_loop(self._stop)
            hold.deadline = trio.current_time() + limits.ENGINE_STOP_S

    def _stop(self) -> None:
        self._stopping = True
        if self._main is not None:
            self._main.cancel("the engine is stopped")

    def _thread(
        self, loop: asyncio.AbstractEventLoop, main: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._supervise(main))
        except Exception:  # goes on to `run` as it is
            raise
        except BaseException as error:  # in trio it would be the end of the whole server
            ended = LoopEndedError(f"the loop was ended by {type(error).__name__}")
            raise ended from error  # noqa: ASYNC104

    async def _supervise(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._main = asyncio.ensure_future(main())
        if self._stopping:  # asked before there was anything to cancel
            self._main.cancel()
        try:
            await self._main
        except asyncio.CancelledError:  # noqa: ASYNC103 - this is where it was asked for
            if not self._stopping:
                raise
