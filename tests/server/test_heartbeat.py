"""P20: how late the event loop is gets measured; here it is made late by a known amount."""

from __future__ import annotations

import time
from itertools import accumulate

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from voxtral_actors.limits import HEARTBEAT_S, LONG_PASS_S, STANDSTILL_S
from voxtral_actors.server.heartbeat import BUCKETS, Heartbeat


def late(heartbeat: Heartbeat, bound: float) -> int:
    """How many beats were later than this bound of a bucket."""
    lags = heartbeat.statistics().lags
    return sum(lags) - list(accumulate(lags))[BUCKETS.index(bound)]


async def test_p20_a_loop_in_good_order_is_never_late(autojump_clock: MockClock) -> None:
    heartbeat = Heartbeat()
    with trio.move_on_after(100):
        await heartbeat.run()
    assert sum(heartbeat.statistics().lags) == pytest.approx(100 / HEARTBEAT_S, abs=2)
    assert late(heartbeat, 0.001) == 0


@pytest.mark.parametrize(
    ("stop_s", "beats"),
    [(0.5, 0.5 / HEARTBEAT_S), (3600, STANDSTILL_S / HEARTBEAT_S)],
    ids=["half a second", "an hour"],
)
async def test_p20_a_stop_counts_as_long_as_it_lasted_up_to_a_second(
    stop_s: float, beats: float, mock_clock: MockClock
) -> None:
    heartbeat = Heartbeat()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.run)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(stop_s)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sum(heartbeat.statistics().lags) == pytest.approx(beats, abs=1)
    assert late(heartbeat, 0.02) == pytest.approx(beats, abs=2)


async def test_p20_a_task_that_holds_the_loop_is_counted() -> None:
    heartbeat = Heartbeat()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heartbeat.run)
            await trio.sleep(HEARTBEAT_S / 2)
            held = heartbeat.statistics().long_passes
            time.sleep(4 * LONG_PASS_S)  # noqa: ASYNC251 - the offence itself
            await trio.sleep(HEARTBEAT_S / 2)
            nursery.cancel_scope.cancel()
    assert heartbeat.statistics().long_passes > held
    assert late(heartbeat, 0.05) >= 1


async def test_p20_the_log_says_how_long_and_how_much_of_it_was_computed() -> None:
    with capture_logs() as lines, trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Heartbeat().run)
            await trio.sleep(HEARTBEAT_S / 2)
            for _ in range(2):  # and says it once
                time.sleep(4 * LONG_PASS_S)  # noqa: ASYNC251 - the offence itself
                await trio.sleep(2 * HEARTBEAT_S)
            nursery.cancel_scope.cancel()
    (line,) = (line for line in lines if line["event"] == "loop.long_pass")
    assert line["seconds"] > LONG_PASS_S
    assert line["computed_s"] < LONG_PASS_S, "it slept"
