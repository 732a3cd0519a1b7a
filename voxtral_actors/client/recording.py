"""The audio of one utterance that may have to be sent again: what has no final text yet.

Positions are bytes from the start of the utterance. Behind `begin` nothing is kept; `sent` is how
far the present connection got. At most `keep` bytes that were sent are kept: past that the oldest
are let go. A loss of the connection then goes back to where text had come so far, and not to the
start. What was let go before its text came is counted in `lost`.
"""

from __future__ import annotations

from voxtral_actors.limits import BYTES_PER_SAMPLE


class Recording:
    """Audio in, frames out, and back to the first byte that is needed."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.begin = 0
        self.sent = 0
        self.lost = 0
        self._settled = 0
        """Before it, all text is final."""
        self._audio = bytearray()

    @property
    def end(self) -> int:
        return self.begin + len(self._audio)

    @property
    def unsent(self) -> int:
        return self.end - self.sent

    def add(self, audio: bytes | bytearray | memoryview) -> None:
        self._audio += audio

    def take(self, most: int) -> bytes:
        """The next frame to send: whole samples, nothing where there is less than one."""
        size = _whole(min(self.unsent, most))
        start = self.sent - self.begin
        frame = bytes(memoryview(self._audio)[start : start + size])
        self.sent += size
        excess = _whole(len(self._audio) - self.keep)
        if excess > 0:
            self._let_go(min(self.sent, self.begin + excess))
        return frame

    def settle(self, position: int) -> None:
        """All text about the audio before `position` is final."""
        self._let_go(max(self.begin, min(position, self.end)))
        self._settled = self.begin

    def rewind(self, covered: int) -> bool:
        """The connection is lost; its text covered the audio before `covered` for certain.

        Returns whether what has to be sent again begins at the start, or where text was settled. If
        not, it begins in the middle, and the text so far stands.
        """
        whole = self.begin == self._settled
        if not whole:
            covered = min(covered, self.sent)
            self.lost += max(0, self.begin - max(covered, self._settled))
            self.settle(covered)
        self.sent = self.begin
        return whole

    def clear(self) -> None:
        """Nothing of it is needed any more."""
        self.begin = self.sent = self._settled = self.end
        self._audio.clear()

    def _let_go(self, position: int) -> None:
        del self._audio[: position - self.begin]
        self.begin = position
        self.sent = max(self.sent, position)


def _whole(size: int) -> int:
    return size - size % BYTES_PER_SAMPLE
