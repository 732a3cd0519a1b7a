"""An hour of speech in one utterance, ten times what a stream may have, on the tiny model (P13).

`-s` prints the figures: the pace and the memory of both processes, part by part.
"""

from __future__ import annotations

import statistics
import tracemalloc
from typing import Final

import psutil
import pytest
import trio

from tests.chaos.long_speech import utter
from tests.vllm.vllm_harness import SharedVllm, Visitor, engine_core

HOUR_S: Final = 3600.0
WALL_S: Final = 1200.0
"""It takes what it gets in this time; two cores that nobody else wants need half of it."""
SEGMENT_S: Final = 60.0


@pytest.mark.chaos
async def test_p13_pace_and_memory_are_flat_however_long_the_utterance(shared: SharedVllm) -> None:
    engine = psutil.Process(engine_core())

    def size() -> float:
        return float(engine.memory_info().rss) / 2**20

    tracemalloc.start()
    try:
        with trio.fail_after(3 * WALL_S):
            heard = await utter(
                lambda: Visitor(shared, 4), HOUR_S, SEGMENT_S, wall_s=WALL_S, parts=30, size=size
            )
    finally:
        tracemalloc.stop()
    print(f"\n{heard}")
    third = len(heard.paces) // 3
    early, late = heard.paces[:third], heard.paces[-third:]
    print(f"pace {statistics.median(early):.1f} early, {statistics.median(late):.1f} late")
    assert heard.segments.total() > heard.audio_s / SEGMENT_S / 2
    assert heard.audio_s > 327, "one stream would have been enough"
    assert statistics.median(late) > 0.8 * statistics.median(early)
    assert heard.blocks[-1] - heard.blocks[third] < 1
    assert heard.sizes[-1] - heard.sizes[third] < 20
