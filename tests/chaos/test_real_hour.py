"""An hour of speech in one utterance, on the embedded engine: rolled in pauses, and in one stream.

`-s` prints the figures.
"""

from __future__ import annotations

import tracemalloc
from collections import Counter
from difflib import SequenceMatcher
from typing import Final

import pytest
import trio

from tests.chaos.long_speech import SAYING_S, Heard, sayings, utter
from voxtral_actors.engine.sphinx import SphinxBackend

HOUR_S: Final = 3600.0
SEGMENT_S: Final = 60.0
"""Sixty rolls an hour, where an engine that wears out has twelve."""
LIMIT_S: Final = 3600.0
"""Some ten minutes on two cores that nobody else wants."""


def differences(one: str, other: str) -> Counter[str]:
    """By how many words two texts differ, and how."""
    words, others = one.split(), other.split()
    found: Counter[str] = Counter()
    matcher = SequenceMatcher(None, words, others, autojunk=False)
    for kind, begins, ends, first, last in matcher.get_opcodes():
        if kind != "equal":
            found[kind] += max(ends - begins, last - first)
    return found


@pytest.mark.chaos
async def test_p13_an_hour_that_is_rolled_in_pauses_has_the_words_of_one_stream() -> None:
    found: dict[float, Heard] = {}

    async def one(segment_s: float) -> None:
        found[segment_s] = await utter(lambda: SphinxBackend(2), HOUR_S, segment_s)

    tracemalloc.start()
    try:
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one, 0)
                nursery.start_soon(one, SEGMENT_S)
    finally:
        tracemalloc.stop()
    whole, rolled = found[0], found[SEGMENT_S]
    differ = differences(whole.text, rolled.text)
    print(f"\n{whole}\n{rolled}\n{dict(differ)} words differ\n{sayings(rolled.text)}")
    assert rolled.segments["pause"] == rolled.segments.total() > HOUR_S / SEGMENT_S / 2
    assert not differ
    assert len(sayings(rolled.text)) == 1
    assert sayings(rolled.text).total() == round(rolled.audio_s / SAYING_S)
    assert rolled.blocks[-1] - rolled.blocks[1] < 1
