"""Audio for the tests, PCM16 at 16 kHz: the same on every run."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
import soundfile
from numpy.typing import NDArray

from voxtral_actors.limits import SAMPLE_RATE

Samples = NDArray[np.float64]

LENGTHS_S = (0.9, 2.7, 6.11)
"""Shorter than the first frame and its delay; an odd length; many frames."""


def _time(seconds: float) -> Samples:
    return np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def tone(seconds: float, hertz: float, volume: float = 0.4) -> Samples:
    return volume * np.sin(2 * np.pi * hertz * _time(seconds))


def sweep(seconds: float, start: float, end: float) -> Samples:
    time = _time(seconds)
    return 0.4 * np.sin(2 * np.pi * (start * time + (end - start) * time**2 / (2 * seconds)))


def noise(seconds: float, seed: int, volume: float = 0.1) -> Samples:
    return volume * np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE))


def warble(seconds: float, hertz: float, rate: float) -> Samples:
    return tone(seconds, hertz) * (0.5 + 0.5 * np.sin(2 * np.pi * rate * _time(seconds)))


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE))


@cache
def _sample() -> Samples:
    with files("voxtral_actors.demo").joinpath("sample.flac").open("rb") as file:
        samples, rate = soundfile.read(file)
    assert rate == SAMPLE_RATE
    return np.asarray(samples, dtype=np.float64)


def speech(seconds: float, start_s: float = 0.0) -> Samples:
    start = round(start_s * SAMPLE_RATE)
    return _sample()[start : start + round(seconds * SAMPLE_RATE)]


def pcm(samples: Samples) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def inputs() -> dict[str, bytes]:
    """Different sounds in each of the three lengths."""
    made: dict[str, bytes] = {}
    for seconds in LENGTHS_S:
        sounds = {
            "tone-110": tone(seconds, 110),
            "tone-1000": tone(seconds, 1000, 0.9),
            "sweep-up": sweep(seconds, 80, 4000),
            "sweep-down": sweep(seconds, 3000, 100),
            "warble": warble(seconds, 440, 3),
            "noise": noise(seconds, seed=1),
            "loud-noise": noise(seconds, seed=2, volume=0.8),
            "silence": silence(seconds),
            "speech": speech(seconds),
            "speech-later": speech(seconds, start_s=1.5),
            "noisy-speech": speech(seconds) + noise(seconds, seed=3, volume=0.02),
        }
        made |= {f"{name}-{seconds}s": pcm(samples) for name, samples in sounds.items()}
    return made


def utterances() -> list[bytes]:
    """Three of two seconds: for tests that are not about what is said."""
    return [
        pcm(speech(2.03)),
        pcm(sweep(2.03, 100, 3000)),
        pcm(warble(2.03, 300, 5)),
    ]
