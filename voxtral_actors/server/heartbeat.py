"""How late the event loop is, measured all the time: everybody's latency is at least that.

A task asks to be woken at fixed times and notes by how much each waking was late: what a timer or a
socket would have waited for its turn, whatever the reason (a task that computes, a thread that
holds the GIL, a machine without a free core). Beats that were missed meanwhile count as well, each
with its own lateness, so one long stop weighs as much as it lasted.

A beat that is very late says that something computes or blocks without a checkpoint, or that the
machine had no time for us: how much of it the thread has computed tells the one from the other.
That is counted, and logged at most once a minute. To look at each pass of the loop would be more
exact, and there are several of them for each live message.
"""

from __future__ import annotations

import math
import sys
import time
from bisect import bisect_left
from typing import Final

import attrs
import structlog
import trio

from voxtral_actors.limits import HEARTBEAT_S, LONG_PASS_S, SAME_LINE_S, STANDSTILL_S

log = structlog.get_logger(__name__)

BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, math.inf)
"""Upper bounds in seconds, close together around the promise: 99 of 100 below 20 ms."""


@attrs.frozen
class HeartbeatStatistics:
    """The event loop since the start, and what it holds at this moment."""

    lags: tuple[int, ...]
    """Beats by lateness: how many fell into each of `BUCKETS`, smaller ones not among them."""
    lag_sum_s: float
    long_passes: int
    """Beats that were late by more than `LONG_PASS_S`; of one pass the first alone."""
    tasks: int
    """Tasks of trio, its own few among them."""
    blocks: int
    """Pieces of memory that Python's small objects hold: what leaks grows here first."""


class Heartbeat:
    """See the module; one `run` per object."""

    def __init__(self) -> None:
        self._lags = [0] * len(BUCKETS)
        self._lag_sum_s = 0.0
        self._long_passes = 0
        self._silent_until = -math.inf

    async def run(self) -> None:
        """Beat until cancelled."""
        due, computed = trio.current_time() + HEARTBEAT_S, time.thread_time()
        while True:
            await trio.sleep_until(due)
            now, before, computed = trio.current_time(), computed, time.thread_time()
            if now - due > LONG_PASS_S:
                self._long_pass(now, now - due, computed - before)
            due = max(due, now - STANDSTILL_S)  # stopped for an hour is not 72,000 beats
            while due <= now:
                self._lags[bisect_left(BUCKETS, now - due)] += 1
                self._lag_sum_s += now - due
                due += HEARTBEAT_S

    def _long_pass(self, now: float, late: float, computed: float) -> None:
        self._long_passes += 1
        if now >= self._silent_until:
            self._silent_until = now + SAME_LINE_S
            times = {"seconds": round(late, 3), "computed_s": round(computed, 3)}
            log.warning("loop.long_pass", **times, so_far=self._long_passes)

    def statistics(self) -> HeartbeatStatistics:
        return HeartbeatStatistics(
            lags=tuple(self._lags),
            lag_sum_s=self._lag_sum_s,
            long_passes=self._long_passes,
            tasks=trio.lowlevel.current_statistics().tasks_living,
            blocks=sys.getallocatedblocks(),
        )
