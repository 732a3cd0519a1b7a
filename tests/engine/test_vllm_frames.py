"""How audio is cut into the model's frames."""

from __future__ import annotations

import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxtral_actors.engine.vllm_frames import Frame, FrameCutter, Layout

LAYOUT = Layout(
    step=1280,
    look_back=840,
    look_ahead=40,
    prefix=tuple([1] + [32] * 38),
    left_pad=32 * 1280,
    right_pad=17 * 1280,
    delay_ms=480,
)
"""Voxtral Realtime at a delay of 480 ms."""


def audio(samples: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(2 * samples)


def cut(pcm: bytes, sizes: list[int] | None = None) -> list[Frame]:
    cutter = FrameCutter(LAYOUT)
    frames: list[Frame] = []
    rest = pcm
    for size in sizes or []:
        cutter.feed(rest[: 2 * size])
        rest = rest[2 * size :]
        frames += cutter.frames()
    cutter.feed(rest)
    cutter.finish()
    return [*frames, *cutter.frames()]


def test_every_frame_is_a_window_of_the_padded_audio() -> None:
    pcm = audio(20_001)
    padded = bytes(2 * LAYOUT.left_pad) + pcm + bytes(2 * LAYOUT.right_pad)

    first, *others = cut(pcm)

    assert first.tokens == len(LAYOUT.prefix)
    assert first.pcm == padded[: 2 * (39 * 1280 + 40)]
    for number, frame in enumerate(others):
        end = (40 + number) * 1280
        assert frame.tokens == 1
        assert frame.pcm == padded[2 * (end - 1280 - 840) : 2 * (end + 40)]
    assert 2 * ((39 + len(others) + 1) * 1280 + 40) > len(padded)


def test_the_first_frame_comes_with_the_delays_audio_and_each_other_with_80_ms() -> None:
    cutter = FrameCutter(LAYOUT)
    needed = 39 * 1280 + 40 - LAYOUT.left_pad

    cutter.feed(audio(needed - 1))
    assert list(cutter.frames()) == []
    cutter.feed(audio(1))
    assert [frame.consumed for frame in cutter.frames()] == [7 * 1280]
    cutter.feed(audio(1279))
    assert list(cutter.frames()) == []
    cutter.feed(audio(1))
    assert [frame.consumed for frame in cutter.frames()] == [8 * 1280]


@given(samples=st.integers(0, 30_000), sizes=st.lists(st.integers(0, 9000), max_size=20))
def test_it_does_not_matter_how_the_audio_comes(samples: int, sizes: list[int]) -> None:
    pcm = audio(samples)

    assert cut(pcm, sizes) == cut(pcm)


@pytest.mark.parametrize("samples", [1, 40, 1279, 1280, 9000, 16_000, 123_457])
def test_positions_are_those_of_the_client_and_reach_the_end(samples: int) -> None:
    positions = [frame.consumed for frame in cut(audio(samples))]

    assert positions == sorted(positions)
    assert positions[-1] == samples


def test_without_audio_there_is_no_frame() -> None:
    assert cut(b"") == []


def test_after_the_end_audio_is_ignored() -> None:
    cutter = FrameCutter(LAYOUT)
    cutter.feed(audio(5000))
    cutter.finish()
    cutter.feed(audio(5000))
    cutter.finish()

    assert [frame.consumed for frame in cutter.frames()][-1] == cutter.fed == 5000


def test_memory_does_not_grow_with_the_stream() -> None:
    cutter = FrameCutter(LAYOUT)
    for _ in range(1000):
        cutter.feed(audio(1280))
        for _ in cutter.frames():
            pass
    assert len(cutter._buffer) <= 2 * (1280 + 840 + 40)


def test_frames_are_copies() -> None:
    """Whoever takes a frame may write into it: the next one overlaps and does not change."""
    pcm = audio(20_000)
    cutter = FrameCutter(LAYOUT)
    cutter.feed(pcm)
    kept = []
    for frame in cutter.frames():
        kept.append(attrs.evolve(frame, pcm=bytearray(frame.pcm)))
        frame.pcm[:] = bytes(len(frame.pcm))

    assert kept == cut(pcm)[: len(kept)]


def test_p13_the_timing_of_the_text_and_the_longest_stream() -> None:
    timing = LAYOUT.timing(max_tokens=100)
    cutter = FrameCutter(LAYOUT)
    assert timing.longest is not None
    cutter.feed(bytes(2 * timing.longest))
    cutter.finish()

    assert (timing.delay, timing.lag) == (480 * 16, 480 * 16 + 6 * 1280)
    assert sum(frame.tokens for frame in cutter.frames()) < 100
