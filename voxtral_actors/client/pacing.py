"""Sending recorded audio as if it were spoken now.

Every chunk is due when its last sample would have been recorded, counted from the first chunk in
samples. The schedule is absolute, so nothing drifts: who falls behind catches up, and a file of
60.00 s takes 60.00 s to send.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

import trio

from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE


class Paced:
    """Chunks of PCM16 when they are due; use it with `async for`. Made by `paced`."""

    def __init__(self, chunks: Iterable[bytes], speed: float) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self._rate = SAMPLE_RATE * speed
        self._samples = 0
        self._start: float | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._start is None:
            self._start = trio.current_time()
        try:
            chunk = next(self._chunks)
        except StopIteration:
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration from None
        self._samples += len(chunk) // BYTES_PER_SAMPLE
        await trio.sleep_until(self._start + self._samples / self._rate)
        return chunk


def paced(chunks: Iterable[bytes], speed: float = 1.0) -> Paced:
    """`chunks` at live pace, or `speed` times as fast."""
    if speed <= 0:
        raise ValueError(f"speed is {speed:g}; allowed: more than 0")
    return Paced(chunks, speed)
