"""Frames on their way to the socket: first in, first out, few at a time.

Only one task writes to the socket, because a cancelled write leaves half a frame behind and with
it a useless connection. Callers put whole frames here; cancelling them is therefore harmless.

Audio waits for `room`; the short messages that end something (`cancel`, `end`) are posted without
waiting, so that cleaning up needs no `await`. Each is posted once an utterance or session, so the
outbox stays bounded.
"""

from __future__ import annotations

from collections import deque

import trio


class Outbox:
    """A bounded queue with one reader, and a way past the bound for last words."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: deque[str | bytes] = deque()
        self._waiting = trio.lowlevel.ParkingLot()
        self._reader = trio.lowlevel.ParkingLot()
        self._empty = trio.lowlevel.ParkingLot()
        self._closed = False

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def full(self) -> bool:
        """Whether audio has to wait."""
        return len(self._frames) >= self._limit

    def post(self, frame: str | bytes) -> None:
        """Add a frame now. Call it right after `room`, or for last words."""
        if not self._closed:
            self._frames.append(frame)
            self._reader.unpark()

    async def room(self) -> None:
        """Wait until a frame may be posted; the caller posts before its next checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.full:
            await self._waiting.park()

    async def take(self) -> str | bytes:
        """The next frame, for the one task that writes."""
        await trio.lowlevel.checkpoint()
        while not self._frames:
            await self._reader.park()
        frame = self._frames.popleft()
        self._waiting.unpark()
        if not self._frames:
            self._empty.unpark_all()
        return frame

    async def drained(self) -> None:
        """Wait until every frame was taken."""
        await trio.lowlevel.checkpoint()
        while self._frames:
            await self._empty.park()

    def close(self) -> None:
        """Nothing can be sent any more. Who waits goes on, and finds the session over."""
        self._closed = True
        self._frames.clear()
        self._waiting.unpark_all()
        self._empty.unpark_all()
