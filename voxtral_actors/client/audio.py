"""Audio files as the wire wants them: PCM16 little endian, 16 kHz, one channel, in chunks.

Whatever libsndfile reads is taken, and files named `.pcm` or `.raw` as the wire's own format. A
file is read, mixed down and resampled block by block: an hour needs no more memory than a second.
Audio that is in the wire's format already comes out bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE

Samples: TypeAlias = npt.NDArray[np.float32]

RAW_SUFFIXES: Final = frozenset({".pcm", ".raw"})

_BLOCK_SAMPLES: Final = 1 << 14
"""Samples read at once over all channels: 64 KiB and a few milliseconds of work. Where a file is
damaged, the block with the damage in it is lost."""

_MIN_RATE, _MAX_RATE = 1_000, 768_000
"""Outside of it, a header is broken rather than a recording unusual."""


class AudioError(Exception):
    """A file cannot be used; the message is one line and names it."""


class Resampler:
    """Mono float samples of any rate to the wire's bytes, as a stream."""

    def __init__(self, rate: float) -> None:
        self._soxr = (
            None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, "float32")
        )

    def push(self, samples: Samples, *, last: bool = False) -> bytes:
        if self._soxr is not None:
            samples = self._soxr.resample_chunk(samples, last=last)
        scaled = np.rint(samples * np.float32(1 << 15))
        pcm: bytes = np.clip(scaled, -(1 << 15), (1 << 15) - 1).astype("<i2").tobytes()
        return pcm


class AudioFile:
    """An open file; iterating gives its audio in chunks. Made by `open_audio`, used with `with`."""

    def __init__(self, path: Path, file: Any, chunk_ms: int) -> None:
        self.path = path
        self.rate: int = file.samplerate
        self.channels: int = file.channels
        self.seconds: float = file.frames / file.samplerate
        """As the header says; the audio itself may turn out shorter."""
        self._file = file
        self._chunk_bytes = chunk_ms * SAMPLE_RATE // 1000 * BYTES_PER_SAMPLE

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        """Chunks of `chunk_ms`; the last one may be shorter.

        Raises:
            AudioError: the file is damaged further on, or there was no audio in it.
        """
        held = bytearray()
        empty = True
        for block in self._blocks():
            held += block
            whole = len(held) - len(held) % self._chunk_bytes
            for start in range(0, whole, self._chunk_bytes):
                empty = False
                yield bytes(held[start : start + self._chunk_bytes])
            del held[:whole]
        if held:
            yield bytes(held)
        elif empty:
            raise AudioError(f"{self.path}: there is no audio in it")

    def _blocks(self) -> Iterator[bytes]:
        resampler = Resampler(self.rate)
        frames = max(1, _BLOCK_SAMPLES // self.channels)
        while True:
            try:
                block = self._file.read(frames, dtype="float32", always_2d=True)
            except soundfile.SoundFileRuntimeError as error:
                raise AudioError(f"{self.path}: damaged: {_reason(error)}") from None
            if not len(block):
                break
            mono = block[:, 0] if self.channels == 1 else block.mean(axis=1, dtype=np.float32)
            whole = np.nan_to_num(mono, posinf=1.0, neginf=-1.0)
            yield resampler.push(np.clip(whole, -1.0, 1.0))
        yield resampler.push(np.zeros(0, np.float32), last=True)


def open_audio(path: str | Path, chunk_ms: int = 80) -> AudioFile:
    """Open a file and read its header.

    Raises:
        AudioError: there is no such file, it is no audio, or it is empty.
    """
    path = Path(path)
    as_raw = path.suffix.lower() in RAW_SUFFIXES
    try:
        if path.is_dir():
            raise AudioError(f"{path}: is a directory")
        size = path.stat().st_size
        with path.open("rb"):
            pass  # libsndfile says "System error" to everything that cannot be opened
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror or error}") from None
    if not size:
        raise AudioError(f"{path}: is empty")
    if as_raw and size % BYTES_PER_SAMPLE:
        raise AudioError(f"{path}: has an odd number of bytes; raw audio is PCM16, two a sample")
    try:
        file = soundfile.SoundFile(path, **(_RAW if as_raw else {}))
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise AudioError(f"{path}: is not audio that can be read: {_reason(error)}") from None
    try:
        if not file.frames:
            raise AudioError(f"{path}: there is no audio in it")
        if not _MIN_RATE <= file.samplerate <= _MAX_RATE:
            raise AudioError(f"{path}: damaged: a sample rate of {file.samplerate} Hz")
    except AudioError:
        file.close()
        raise
    return AudioFile(path, file, chunk_ms)


_RAW: Final[dict[str, Any]] = {
    "samplerate": SAMPLE_RATE,
    "channels": 1,
    "format": "RAW",
    "subtype": "PCM_16",
    "endian": "LITTLE",
}


def _reason(error: Exception) -> str:
    """libsndfile's own words without the path, which the caller names."""
    words: str = getattr(error, "error_string", str(error))
    return words.strip().rstrip(".")
