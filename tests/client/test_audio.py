"""Files to chunks of PCM16 at 16 kHz."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from voxtral_actors.client.audio import AudioError, open_audio
from voxtral_actors.limits import SAMPLE_RATE


def tone(seconds: float, rate: int, hertz: float = 440.0) -> npt.NDArray[np.float32]:
    time = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def samples_of(path: Path, chunk_ms: int = 80) -> npt.NDArray[np.float64]:
    with open_audio(path, chunk_ms) as file:
        chunks = list(file)
    assert {len(chunk) for chunk in chunks[:-1]} <= {chunk_ms * 32}
    assert 0 < len(chunks[-1]) <= chunk_ms * 32
    return np.frombuffer(b"".join(chunks), "<i2") / 32768


def loudest_hertz(samples: npt.NDArray[np.float64]) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * SAMPLE_RATE / len(samples))


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channels_keep_length_and_pitch(
    tmp_path: Path, rate: int, channels: int
) -> None:
    audio = tone(1.5, rate)
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.repeat(audio[:, None], channels, axis=1), rate)

    samples = samples_of(path)

    assert abs(len(samples) - len(audio) * SAMPLE_RATE / rate) <= 1
    assert loudest_hertz(samples) == pytest.approx(440, abs=1)
    assert np.max(np.abs(samples)) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("flac", {}),
        ("mp3", {}),
        ("ogg", {}),
        ("opus", {"format": "OGG", "subtype": "OPUS"}),
        ("aiff", {}),
        ("wav", {"subtype": "FLOAT"}),
        ("wav", {"subtype": "ULAW"}),
    ],
)
def test_formats(tmp_path: Path, suffix: str, options: dict[str, Any]) -> None:
    path = tmp_path / f"tone.{suffix}"
    rate = 48_000
    soundfile.write(path, tone(2, rate), rate, **options)

    samples = samples_of(path)

    assert len(samples) == pytest.approx(2 * SAMPLE_RATE, rel=0.05)
    assert loudest_hertz(samples) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("name", ["a.wav", "a.pcm", "a.RAW"])
def test_the_wires_own_format_passes_bit_for_bit(tmp_path: Path, name: str) -> None:
    pcm = np.random.default_rng(7).integers(-(1 << 15), 1 << 15, 50_001).astype("<i2")
    pcm[:2] = -(1 << 15), (1 << 15) - 1
    path = tmp_path / name
    if name == "a.wav":
        soundfile.write(path, pcm, SAMPLE_RATE, subtype="PCM_16")
    else:
        path.write_bytes(pcm.tobytes())

    with open_audio(path, 20) as file:
        assert b"".join(file) == pcm.tobytes()
        assert file.seconds == pytest.approx(50_001 / SAMPLE_RATE)


def test_loud_and_broken_samples_are_clipped(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    loud = np.array([2.0, -2.0, np.nan, np.inf, -np.inf, 0.5], np.float32)
    soundfile.write(path, loud, SAMPLE_RATE, subtype="FLOAT")

    with open_audio(path) as file:
        samples = np.frombuffer(b"".join(file), "<i2")

    assert samples.tolist() == [32767, -32768, 0, 32767, -32768, 16384]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    rate = 44_100
    with soundfile.SoundFile(path, "w", rate, 2) as file:
        for _ in range(300):
            file.write(np.zeros((rate, 2), np.float32))
    tracemalloc.start()
    with open_audio(path) as audio:
        total = sum(len(chunk) for chunk in audio)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert total == 300 * SAMPLE_RATE * 2
    assert peak < 4 << 20


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_what_cannot_be_used_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    header_only = tmp_path / "header.wav"
    soundfile.write(header_only, np.zeros(0, np.float32), SAMPLE_RATE)
    odd_rate = tmp_path / "rate.wav"
    soundfile.write(odd_rate, tone(0.1, 8000), 7)
    cases = {
        tmp_path / "missing.wav": "No such file",
        tmp_path: "directory",
        write(tmp_path / "empty.mp3", b""): "empty",
        write(tmp_path / "empty.pcm", b""): "empty",
        write(tmp_path / "odd.pcm", b"abc"): "odd number",
        write(tmp_path / "text.wav", b"not audio at all"): "not audio",
        write(tmp_path / "text.mp3", b"not audio at all"): "not audio",
        header_only: "no audio",
        odd_rate: "sample rate of 7",
    }
    for path, reason in cases.items():
        with pytest.raises(AudioError) as caught, open_audio(path) as file:
            list(file)
        message = str(caught.value)
        assert reason in message
        assert message.startswith(f"{path}: ")
        assert "\n" not in message


def test_a_file_that_was_cut_off_gives_what_is_there_or_a_clear_error(tmp_path: Path) -> None:
    whole = tmp_path / "whole.flac"
    soundfile.write(whole, np.random.default_rng(1).uniform(-0.5, 0.5, 80_000), SAMPLE_RATE)
    cut = write(tmp_path / "cut.flac", whole.read_bytes()[:60_000])
    total = 0
    with open_audio(cut) as file:
        try:
            for chunk in file:
                total += len(chunk) // 2
        except AudioError as error:
            assert "damaged" in str(error)  # noqa: PT017 - either is right
    assert 0 < total < 80_000
