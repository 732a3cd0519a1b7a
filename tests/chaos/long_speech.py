"""A very long utterance on a real engine, as fast as the engine takes it, and its figures.

The demo sample is said again and again, with pauses between. What one saying of it becomes is
known, so a word that is missing or said twice where two streams meet would show.
"""

from __future__ import annotations

import gc
import math
import re
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Final

import attrs
import soundfile
import trio

from tests.connection.client import FakeTransport
from tests.connection.fakes import make_settings
from voxtral_actors import limits
from voxtral_actors.connection import supervisor
from voxtral_actors.connection.drain import Drain
from voxtral_actors.connection.figures import UtteranceFigures
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.engine.port import Backend
from voxtral_actors.protocol import events

MESSAGE: Final = limits.SAMPLE_RATE * limits.BYTES_PER_SAMPLE
ROOM_S: Final = 1.5
"""Silence after each saying, in which both the engine and the segmenter hear a pause."""


@cache
def saying() -> bytes:
    """The sample and a pause."""
    with files("voxtral_actors.demo").joinpath("sample.flac").open("rb") as file:
        samples, rate = soundfile.read(file, dtype="int16")
    assert rate == limits.SAMPLE_RATE
    return bytes(samples.tobytes()) + bytes(round(ROOM_S * MESSAGE))


SAYING_S: Final = len(saying()) / MESSAGE


@attrs.define
class Heard:
    """What came of one utterance."""

    text: str = ""
    audio_s: float = 0
    paces: list[float] = attrs.field(factory=list)
    """Seconds of audio in a second, of each part."""
    segments: Counter[str] = attrs.field(factory=Counter)
    blocks: list[float] = attrs.field(factory=list)
    """Python's memory after each part, in MiB, without the audio that is kept."""
    sizes: list[float] = attrs.field(factory=list)
    """What else was asked for after each part."""
    held_s: float = 0
    """The most audio that was kept."""

    def __str__(self) -> str:
        words, paces = len(self.text.split()), [round(pace, 1) for pace in self.paces]
        return (
            f"{self.audio_s / 60:.0f} min in {self.segments.total() + 1} streams"
            f" {dict(self.segments)}, {words} words; {paces} times as fast as live;"
            f" {self.held_s:.1f} s kept at most; MiB of Python's memory"
            f" {[round(size, 2) for size in self.blocks]}, and {[round(s, 1) for s in self.sizes]}"
        )


async def utter(
    make_backend: Callable[[], Backend],
    audio_s: float,
    segment_s: float,
    *,
    wall_s: float = math.inf,
    parts: int = 10,
    size: Callable[[], float] = lambda: 0.0,
) -> Heard:
    """Say so much in one utterance, or less if it takes longer than `wall_s`."""
    engine, transport = EngineActor(make_backend), FakeTransport()
    client, figures, heard = transport.client, UtteranceFigures(), Heard()
    settings = make_settings(segment_s=segment_s, mute_s=0, idle_timeout_s=0, max_duration_s=0)

    async def serve() -> None:
        await supervisor.serve(
            transport, engine, info, settings, Drain(), session_id="long", created=0,
            drain_share=0, figures=figures, ended=lambda _: None,
        )  # fmt: skip

    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.run)
        info = await engine.wait_ready()
        nursery.start_soon(serve)
        until = time.monotonic() + wall_s
        client.start("a")
        for _ in range(parts):
            begun, times = time.monotonic(), round(audio_s / parts / SAYING_S)
            for _ in range(times):
                for at in range(0, len(saying()), MESSAGE):
                    client.audio(saying()[at : at + MESSAGE])
                while transport.unread:  # noqa: ASYNC110 - nobody signals it
                    await trio.sleep(0.02)
                heard.held_s = max(heard.held_s, figures.journals()[0])
                heard.audio_s += SAYING_S
            heard.paces.append(times * SAYING_S / (time.monotonic() - begun))
            del client.heard[1:]  # what the test keeps is not what the server keeps
            gc.collect()
            kept = figures.journals()[0] * MESSAGE
            heard.blocks.append((tracemalloc.get_traced_memory()[0] - kept) / 2**20)
            heard.sizes.append(size())
            if time.monotonic() > until:
                break
        client.finalise("a")
        heard.text = (await client.hear(events.Done, "a")).text
        heard.segments = figures.segments
        nursery.cancel_scope.cancel(reason="all is said")
    return heard


def sayings(text: str) -> Counter[str]:
    """What each saying became: the text cut where a saying begins."""
    parts = re.split(r"(?=\bwe will meet\b)", text)
    return Counter(part.strip() for part in parts if part.strip())
