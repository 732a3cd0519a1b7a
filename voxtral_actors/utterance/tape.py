"""Audio in the order in which it came, of which the oldest is forgotten.

It is kept in the pieces in which it came, as these are: a message of audio is never copied into
one large buffer that grows and moves, and handed out again as the object that it is.

Positions are samples from the start of the utterance.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from voxtral_actors.limits import BYTES_PER_SAMPLE

SMALL_BYTES: Final = 2048
"""Pieces are joined up to this size, for an object to each of a few samples would take ten times
the memory of the audio itself."""


class Tape:
    """What there is from `begins` to `ends`."""

    def __init__(self) -> None:
        self.begins = self.ends = 0
        self._pieces: deque[bytes] = deque()

    def append(self, pcm: bytes) -> None:
        """Take more audio: any number of whole samples."""
        pieces = self._pieces
        if pieces and len(pieces[-1]) + len(pcm) <= SMALL_BYTES:
            pieces[-1] += pcm
        else:
            pieces.append(pcm)
        self.ends += len(pcm) // BYTES_PER_SAMPLE

    def part(self, begins: int, ends: int) -> bytes:
        """A part of what is here; quick near the end."""
        assert self.begins <= begins <= ends <= self.ends, "not here"  # noqa: S101 - our bug
        parts: list[bytes] = []
        at = self.ends
        for piece in reversed(self._pieces):
            if at <= begins:
                break
            at -= len(piece) // BYTES_PER_SAMPLE
            if at < ends:
                first = max(begins - at, 0)
                parts.append(piece[first * BYTES_PER_SAMPLE : (ends - at) * BYTES_PER_SAMPLE])
        parts.reverse()
        return b"".join(parts)

    def forget(self, until: int) -> None:
        """Forget what comes before a position."""
        assert until <= self.ends, "not here yet"  # noqa: S101 - our bug
        pieces = self._pieces
        while self.begins < until:
            piece = pieces.popleft()
            samples = len(piece) // BYTES_PER_SAMPLE
            if self.begins + samples > until:
                pieces.appendleft(piece[(until - self.begins) * BYTES_PER_SAMPLE :])
                samples = until - self.begins
            self.begins += samples
