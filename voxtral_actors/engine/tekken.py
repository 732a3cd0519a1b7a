"""The transcription delay, written where the model reads it: `tekken.json` of its folder.

Voxtral Realtime takes its delay from `audio.transcription_delay_ms` of the tokenizer's file, once,
when the engine starts. `set_delay` puts the wanted number there and leaves every other byte as it
is. The file as it was published is kept beside it as `tekken.json.orig`, and every change starts
from that one; so the published hash can be checked at any time, and a damaged `tekken.json` is made
anew. Stopped at any point, the folder holds the old file or the new one.

Engines with different delays need a folder each: the last one to start sets it for all.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from voxtral_actors.engine import atomic
from voxtral_actors.limits import TEKKEN_LOCK_S

FILE = "tekken.json"
ORIGINAL = "tekken.json.orig"
LOCK = ".tekken.lock"

FRAME_MS = 80
"""One frame, and one token, of the model."""
DELAYS_MS = range(80, 2400 + 1, FRAME_MS)

# In JSON a quotation mark inside a text is escaped, so this finds the name of a member only.
_MEMBER = re.compile(rb'("transcription_delay_ms"\s*:\s*)(-?[0-9.eE+-]+)')


class TekkenError(Exception):
    """The delay cannot be set; the message says why and names the file."""


def delay_tokens(delay_ms: int) -> int:
    """How many tokens the text trails the audio by.

    Raises:
        TekkenError: the model has no such delay.
    """
    if delay_ms not in DELAYS_MS:
        raise TekkenError(f"a delay of {delay_ms} ms; allowed: a multiple of 80 from 80 to 2400.")
    return delay_ms // FRAME_MS


def published(folder: Path) -> Path:
    """The tokenizer's file as the model's makers published it, which is what its hash is of."""
    original = folder / ORIGINAL
    return original if original.exists() else folder / FILE


def set_delay(folder: Path, delay_ms: int) -> int:
    """Make the model of this folder trail the audio by `delay_ms`; returns that in tokens.

    Raises:
        TekkenError: the delay or the file is not as it must be, or it cannot be written.
    """
    tokens = delay_tokens(delay_ms)
    try:
        if _outcome(folder, delay_ms)[1] is not None:
            with atomic.locked(folder / LOCK, _Patience(folder)):
                _change(folder, delay_ms)
    except OSError as error:
        raise TekkenError(f"{folder / FILE} cannot be changed: {error.strerror}.") from error
    return tokens


def _change(folder: Path, delay_ms: int) -> None:
    source, wanted = _outcome(folder, delay_ms)
    if wanted is None:
        return
    if source.name == FILE:
        time_ns = source.stat().st_mtime_ns
        atomic.write(folder / ORIGINAL, source.read_bytes(), mtime_ns=time_ns)
    atomic.write(folder / FILE, wanted)


def _outcome(folder: Path, delay_ms: int) -> tuple[Path, bytes | None]:
    """The published file, and what `tekken.json` must become, or None if it is that already."""
    source = published(folder)
    try:
        data = source.read_bytes()
    except FileNotFoundError:
        raise TekkenError(f"{folder} holds no {FILE}.") from None
    wanted = patched(data, delay_ms, source)
    path = folder / FILE
    now = data if source == path else path.read_bytes() if path.exists() else None
    return source, None if now == wanted else wanted


def patched(data: bytes, delay_ms: int, name: Path) -> bytes:
    """`data` with another delay in it and nothing else changed.

    Raises:
        TekkenError: `data` is not laid out like the tokenizer of a Voxtral Realtime.
    """
    before = _parse(data, name)
    changed, count = _MEMBER.subn(rb"\g<1>%d" % delay_ms, data)
    if count != 1:
        raise _unknown(name, f"it has {count} numbers named transcription_delay_ms")
    # The text was changed by its look; this is the proof that the right number was meant.
    before["audio"]["transcription_delay_ms"] = delay_ms
    if _parse(changed, name) != before:
        raise _unknown(name, "audio.transcription_delay_ms is not where it should be")
    return changed


def _parse(data: bytes, name: Path) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise _unknown(name, "it is not JSON") from None
    audio = content.get("audio") if isinstance(content, dict) else None
    if not isinstance(audio, dict):
        raise _unknown(name, "it has no object named audio")
    delay = audio.get("transcription_delay_ms")
    if not isinstance(delay, int | float) or isinstance(delay, bool):
        raise _unknown(name, "it has no number audio.transcription_delay_ms")
    if audio.get("frame_rate") != 1000 / FRAME_MS:
        raise _unknown(name, f"its audio.frame_rate is not {1000 / FRAME_MS:g}")
    assert isinstance(content, dict)  # noqa: S101 - narrows the type
    return content


def _unknown(name: Path, why: str) -> TekkenError:
    return TekkenError(f"{name} is not laid out like that of a Voxtral Realtime model: {why}.")


class _Patience:
    """Waits for another process that sets the delay, which takes it less than a second."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._deadline = time.monotonic() + TEKKEN_LOCK_S

    def __call__(self) -> None:
        if time.monotonic() > self._deadline:
            raise TekkenError(f"another process holds {self._folder / LOCK}.")
        time.sleep(0.05)
