"""How long a step takes with so many streams in it, and how many streams stay live.

A stream is live while it gets one step for each 80 ms of its audio. vLLM batches: one step serves
every stream that has a frame. A straight line fits what was published of such steps,

    step(streams) = fixed + each * streams,

and the only published ones are of an H200 with CUDA graphs: 201, 655 and 1020 tokens/s with 1, 4
and 8 streams (vLLM pull request 51167), so 4.98, 6.11 and 7.84 ms. For another GPU the part of
`fixed` that reads the weights is scaled by memory bandwidth; the rest, and `each`, is taken to be
work of the host and launches, which a GPU does not change, plus reading the keys and values of a
stream. This is an estimate: steps measured on the GPU itself replace it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import attrs

from voxtral_actors.planning.gpus import GPUS, Gpu

FRAME_MS = 80.0
"""The audio of one token."""
PUBLISHED_H200_MS = {1: 1000 / 201, 4: 4000 / 655, 8: 8000 / 1020}
BUSY = 0.7
"""The share of 80 ms that a step may take. The rest is for steps in which streams begin, which are
longer, and for the streams that come while one runs. [guess]"""
ACHIEVED_BANDWIDTH = 0.8
"""Of the data sheet's bandwidth, what large reads get; usual for matrix times vector."""


@attrs.frozen
class StepTime:
    """Milliseconds: `fixed` for a step, `each` for a stream in it."""

    fixed: float
    each: float

    def ms(self, streams: int) -> float:
        return self.fixed + self.each * streams

    def live(self, busy: float = BUSY) -> int:
        """The most streams whose step takes no more than this share of a frame."""
        return max(0, int((busy * FRAME_MS - self.fixed) / self.each))


def measured(points: Mapping[int, float]) -> StepTime:
    """The line through steps that were measured, {streams: milliseconds}, at least two.

    Raises:
        ValueError: they are too few, or a step does not get longer with more streams.
    """
    if len(points) < 2:
        raise ValueError("two measured steps are needed, with different numbers of streams")
    each, fixed = statistics.linear_regression(list(points), list(points.values()))
    if each <= 0:
        raise ValueError("the measured steps do not get longer with more streams")
    return StepTime(fixed, each)


def estimated(gpu: Gpu, weight_bytes: float, stream_kv_bytes: float) -> StepTime:
    """The published line, for another GPU; `stream_kv_bytes` is what a stream's step reads."""
    published = measured(PUBLISHED_H200_MS)
    h200 = GPUS["h200"]
    read = _read_ms(gpu, weight_bytes) - _read_ms(h200, weight_bytes)
    return StepTime(published.fixed + read, published.each + _read_ms(gpu, stream_kv_bytes))


def _read_ms(gpu: Gpu, size: float) -> float:
    return size / (gpu.bandwidth * 1e9 * ACHIEVED_BANDWIDTH) * 1000
