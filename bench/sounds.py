"""What sessions say: PCM16 at 16 kHz, one channel."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files

import numpy as np

from voxtral_actors.client.audio import open_audio
from voxtral_actors.limits import SAMPLE_RATE

NOISE_S = 20


def speech() -> bytes:
    """The demo's eight seconds of real speech."""
    with as_file(files("voxtral_actors.demo") / "sample.flac") as path, open_audio(path) as chunks:
        return b"".join(chunks)


def noise() -> bytes:
    """The same on every run; no two steps are alike."""
    samples = np.random.default_rng(1).standard_normal(NOISE_S * SAMPLE_RATE)
    return (np.clip(0.1 * samples, -1, 1) * 32767).astype("<i2").tobytes()


AUDIO: dict[str, Callable[[], bytes]] = {"speech": speech, "noise": noise}
