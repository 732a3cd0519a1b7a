"""Live pace is exact in virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from voxtral_actors.client.pacing import paced

CHUNK = bytes(2560)


async def test_each_chunk_is_due_when_its_last_sample_would_be_recorded(
    autojump_clock: MockClock,
) -> None:
    start = trio.current_time()
    times = [trio.current_time() - start async for _ in paced([CHUNK] * 10)]
    assert times == pytest.approx([0.08 * (index + 1) for index in range(10)], abs=1e-9)


async def test_an_hour_does_not_drift(autojump_clock: MockClock) -> None:
    start = trio.current_time()
    async for _ in paced(CHUNK for _ in range(45_000)):
        pass
    assert trio.current_time() - start == pytest.approx(3600, abs=1e-6)


async def test_who_falls_behind_catches_up(autojump_clock: MockClock) -> None:
    start = trio.current_time()
    times = []
    async for _ in paced([CHUNK] * 10):
        times.append(trio.current_time() - start)
        if len(times) == 3:
            await trio.sleep(0.3)
    assert times[3:6] == pytest.approx([0.54, 0.54, 0.54], abs=1e-9)
    assert times[-1] == pytest.approx(0.8, abs=1e-9)


async def test_speed(autojump_clock: MockClock) -> None:
    start = trio.current_time()
    async for _ in paced([CHUNK, CHUNK[:1280]], speed=4):
        pass
    assert trio.current_time() - start == pytest.approx(0.03, abs=1e-9)


async def test_nothing_to_pace() -> None:
    assert [chunk async for chunk in paced([])] == []
    with pytest.raises(ValueError, match="speed"):
        paced([], speed=0)
