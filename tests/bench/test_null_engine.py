"""The engine that costs nothing: what the server's own cost is measured with."""

from __future__ import annotations

from pathlib import Path

import trio

from bench.web_tier_servers import NullBackend, open_counters
from voxtral_actors.engine.port import BackendEvent, EngineInfo, Released, StreamSpec, Text

STEP = bytes(2560)


def counters(folder: Path) -> memoryview:
    path = folder / "counters"
    path.write_bytes(bytes(8 * 4))
    return open_counters(path)


async def test_it_is_ready_at_once() -> None:
    async with trio.open_nursery() as nursery:
        backend = NullBackend(memoryview(bytearray(8)).cast("Q"), answer=False)
        info = await nursery.start(backend.run)
        nursery.cancel_scope.cancel()

    assert isinstance(info, EngineInfo)
    assert info.slots > 10_000


def test_audio_is_counted_where_another_process_can_see_it(tmp_path: Path) -> None:
    shared = counters(tmp_path)
    stream = NullBackend(shared, answer=False).open(StreamSpec("s2/r0"), lambda _: None)

    for _ in range(3):
        stream.feed(STEP)

    assert list(open_counters(tmp_path / "counters")) == [0, 0, 3, 0]


def test_swallowed_audio_is_told_of_once_a_second(tmp_path: Path) -> None:
    """Or the server would take the engine for one that has stalled."""
    events: list[BackendEvent] = []
    stream = NullBackend(counters(tmp_path), answer=False).open(StreamSpec("s0/r0"), events.append)

    for _ in range(26):
        stream.feed(STEP)

    assert events == [Text("", 16_640), Text("", 33_280)]


def test_answered_audio_is_a_word_each(tmp_path: Path) -> None:
    events: list[BackendEvent] = []
    stream = NullBackend(counters(tmp_path), answer=True).open(StreamSpec("s0/r0"), events.append)

    stream.feed(STEP)
    stream.feed(STEP)
    stream.abort()

    assert events == [Text(" word", 1280), Text(" word", 2560), Released()]
