"""The microphone, through PortAudio, as audio for the wire.

PortAudio calls back in a thread of its own that must neither wait nor raise. The callback copies
its block and hands it to trio with `run_sync_soon`; a bound on what is under way and not yet taken
keeps memory finite when the network stalls. What comes past the bound is counted in `lost_s`.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import trio

from voxtral_actors.client import limits
from voxtral_actors.client.audio import Resampler
from voxtral_actors.limits import SAMPLE_RATE

NO_PACKAGE: Final = "the package sounddevice is not installed: pip install 'voxtral-actors[mic]'"
NO_LIBRARY: Final = """\
the PortAudio library of the system is missing; the package sounddevice is there. To install it:
  sudo apt-get install libportaudio2      # Debian, Ubuntu
  sudo dnf install portaudio              # Fedora
"""


class MicrophoneError(Exception):
    """There is no microphone to listen to; the message says what to do."""


def load_sounddevice() -> Any:
    """The sounddevice module.

    Raises:
        MicrophoneError: it, or the PortAudio library below it, is not installed.
    """
    try:
        import sounddevice
    except ImportError:
        raise MicrophoneError(NO_PACKAGE) from None
    except OSError:  # "PortAudio library not found"
        raise MicrophoneError(NO_LIBRARY) from None
    return sounddevice


class Microphone:
    """Blocks of PCM16; use it with `with` and `async for`. `stop` ends the iteration after the
    blocks that are captured already."""

    def __init__(self, sounddevice: Any, device: str | int | None, block_ms: int) -> None:
        self._rate = _rate(sounddevice, device)
        block = self._rate * block_ms // 1000
        self._block_s = block / self._rate
        self._limit = int(limits.MICROPHONE_BUFFER_S / self._block_s)
        self._resampler = Resampler(self._rate)
        self._blocks: deque[bytes] = deque()
        self._counter = threading.Lock()
        self._pending = 0
        self._lost = 0
        self._stopped = False
        self._news = trio.lowlevel.ParkingLot()
        self._token = trio.lowlevel.current_trio_token()
        try:
            self._stream = sounddevice.RawInputStream(
                samplerate=self._rate,
                blocksize=block,
                device=device,
                channels=1,
                dtype="int16",
                callback=self._captured,
            )
        except sounddevice.PortAudioError as error:
            raise MicrophoneError(f"the microphone cannot be opened: {error}") from None

    @property
    def lost_s(self) -> float:
        """Seconds of audio that were captured and could not be sent in time."""
        return self._lost * self._block_s

    def __enter__(self) -> Self:
        self._stream.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stream.close()

    def stop(self) -> None:
        self._stopped = True
        self._stream.stop()
        self._news.unpark_all()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._blocks:
            if self._stopped and not self._pending:
                raise StopAsyncIteration
            await self._news.park()
        with self._counter:
            self._pending -= 1
        samples = np.frombuffer(self._blocks.popleft(), "<i2").astype(np.float32) / np.float32(
            1 << 15
        )
        return self._resampler.push(samples)

    def _captured(self, block: Any, _frames: int, _time: Any, status: Any) -> None:
        """PortAudio's callback, in its thread: never waits, never raises."""
        with self._counter:
            if self._pending >= self._limit:
                self._lost += 1
                return
            self._lost += bool(status and status.input_overflow)
            self._pending += 1
        try:
            self._token.run_sync_soon(self._arrived, bytes(block))
        except trio.RunFinishedError:
            return  # the program is ending

    def _arrived(self, block: bytes) -> None:
        self._blocks.append(block)
        self._news.unpark_all()


def _rate(sounddevice: Any, device: str | int | None) -> int:
    """The wire's rate where the device takes it, else its own, to be resampled."""
    try:
        sounddevice.check_input_settings(
            device=device, channels=1, dtype="int16", samplerate=SAMPLE_RATE
        )
        return SAMPLE_RATE
    except ValueError as error:
        raise MicrophoneError(f"no such microphone: {error}") from None
    except sounddevice.PortAudioError:
        pass
    try:
        return int(sounddevice.query_devices(device, "input")["default_samplerate"])
    except (ValueError, sounddevice.PortAudioError) as error:
        raise MicrophoneError(f"there is no microphone: {error}") from None
