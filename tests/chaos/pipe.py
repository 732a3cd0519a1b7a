"""Two pipes and their common fate: what lies between the two ends of one simulated connection.

A pipe holds the pieces of one direction that are under way, each with the time at which it arrives.
There are no tasks in here: an end that waits computes when what it waits for arrives.
"""

from __future__ import annotations

import enum
import math
import random
import zlib
from collections import deque

import trio

from tests.chaos.toxics import NEVER, Toxics


class Mark(enum.Enum):
    """What may stand behind the bytes of a direction."""

    EOF = "eof"
    RESET = "reset"


class Pipe:
    """One direction of a connection: pieces under way, each with the time at which it arrives."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._pieces: deque[tuple[float, bytes | Mark]] = deque()
        self._held = 0
        self._line_free_at = 0.0
        self._last_arrival = 0.0
        self._ended = False  # an EOF or a reset stands at the end: nothing more is taken
        self._changed = trio.lowlevel.ParkingLot()
        self.written = 0
        self.read = 0
        self.crc = 0
        """Checksum of what was read; with `read`, all that a trace needs of it."""
        self.reader_closed = self.writer_closed = False
        self.read_out_at = NEVER
        """When the reader found the end, EOF or reset."""

    @property
    def unread(self) -> bool:
        """Whether bytes have arrived that nobody has read."""
        if not self._pieces:
            return False
        arrival, piece = self._pieces[0]
        return arrival <= trio.current_time() and isinstance(piece, bytes)

    async def write(self, data: bytes) -> None:
        while data := data[self.write_now(data) :]:
            await self._wait(NEVER)

    def write_now(self, data: bytes) -> int:
        """How many bytes found room."""
        self._link.pass_time()
        if self.writer_closed:
            raise trio.ClosedResourceError
        if self._link.broken:
            raise trio.BrokenResourceError
        if self.reader_closed and not self._link.dark:
            self._link.refuse(self)
            raise trio.BrokenResourceError
        whole = self._link.toxics.buffer_bytes
        room = whole - self._held
        if room < min(len(data), whole // 2):  # not byte by byte, as TCP does not
            return 0
        self._put(data[:room])
        return min(room, len(data))

    def _put(self, data: bytes) -> None:
        """What fits into the buffer is under way at once, in as many pieces as the toxics say."""
        link, toxics = self._link, self._link.toxics
        limit = toxics.limit_bytes - self.written if self is link.upward else math.inf
        data = data if len(data) <= limit else data[: int(limit)]
        cuts = link.rng.randint(0, toxics.cuts) if toxics.cuts else 0
        places = sorted(link.rng.randrange(len(data) + 1) for _ in range(cuts))
        for start, end in zip([0, *places], [*places, len(data)], strict=True):
            if start < end:
                self._append(data[start:end], end - start)
        self.written += len(data)
        self._held += len(data)
        if len(data) >= limit:
            self._append(Mark.RESET, 0)

    def _append(self, piece: bytes | Mark, size: int, extra_s: float = 0) -> None:
        toxics, now = self._link.toxics, trio.current_time()
        self._line_free_at = max(now, self._line_free_at) + size / toxics.bandwidth
        jitter = toxics.jitter_s * self._link.rng.random() if toxics.jitter_s else 0
        arrival = self._line_free_at + toxics.latency_s + jitter + extra_s
        arrival = max(arrival, self._last_arrival)
        if arrival >= self._link.dark_from:
            arrival = NEVER
        self._last_arrival = arrival
        self._pieces.append((arrival, piece))
        self._ended = self._ended or isinstance(piece, Mark)
        self._changed.unpark_all()

    async def receive(self, max_bytes: int) -> bytes:
        if self._pieces and self._pieces[0][0] <= trio.current_time():
            await trio.lowlevel.checkpoint()  # else the wait is one
        while True:
            self._link.pass_time()
            if self.reader_closed:
                raise trio.ClosedResourceError
            arrival, piece = self._pieces[0] if self._pieces else (NEVER, None)
            if arrival > trio.current_time():
                await self._wait(arrival)
            elif piece is Mark.EOF:
                self.read_out_at = min(self.read_out_at, trio.current_time())
                return b""  # and again at each later call
            elif piece is Mark.RESET:
                self.read_out_at = min(self.read_out_at, trio.current_time())
                self._link.reset()
                raise trio.BrokenResourceError
            else:
                return self._take(max_bytes)

    def _take(self, max_bytes: int) -> bytes:
        """The first piece, or all that have arrived if pieces are not to be told apart."""
        taken = bytearray()
        now, one = trio.current_time(), self._link.toxics.cuts > 0
        while self._pieces and len(taken) < max_bytes and not (one and taken):
            arrival, piece = self._pieces[0]
            if arrival > now or isinstance(piece, Mark):
                break
            self._pieces.popleft()
            room = max_bytes - len(taken)
            taken += piece[:room]
            if len(piece) > room:
                self._pieces.appendleft((arrival, piece[room:]))
        self._held -= len(taken)
        self.read += len(taken)
        self.crc = zlib.crc32(taken, self.crc)
        self._changed.unpark_all()
        return bytes(taken)

    async def _wait(self, until: float) -> None:
        until = min(until, self._link.reset_at)
        if until == NEVER:
            await self._changed.park()
        else:
            with trio.move_on_at(until):
                await self._changed.park()

    def end(self) -> None:
        """The writer says EOF."""
        if not self._ended:
            self._append(Mark.EOF, 0, self._link.toxics.slow_close_s)

    def reset(self, *, behind: bool = False) -> None:
        """Let the reader find a reset: now, or behind what is under way."""
        if behind:
            self._append(Mark.RESET, 0)
            return
        now = trio.current_time()
        while self._pieces and (self._pieces[-1][0] > now or isinstance(self._pieces[-1][1], Mark)):
            self._pieces.pop()
        self._pieces.append((now, Mark.RESET))
        self._ended = True
        self._changed.unpark_all()

    def darken(self) -> None:
        """Nothing that has not arrived does so any more."""
        now = trio.current_time()
        self._pieces = deque((NEVER if at > now else at, piece) for at, piece in self._pieces)
        self._last_arrival = NEVER

    def wake(self) -> None:
        self._changed.unpark_all()


class Link:
    """One connection: two pipes and their common fate."""

    def __init__(self, number: int, toxics: Toxics, rng: random.Random) -> None:
        now = trio.current_time()
        self.number = number
        self.toxics = toxics
        self.rng = rng
        self.reset_at = now + toxics.reset_s
        self.dark_from = now + toxics.black_hole_s
        self.broken = False
        self.upward, self.downward = Pipe(self), Pipe(self)

    @property
    def dark(self) -> bool:
        return trio.current_time() >= self.dark_from

    def pass_time(self) -> None:
        """What was due in the meantime happens now."""
        if not self.broken and trio.current_time() >= self.reset_at:
            self.reset()

    def reset(self) -> None:
        if not self.broken and not self.dark:
            self.broken = True
            self.reset_at = NEVER
            self.upward.reset()
            self.downward.reset()

    def refuse(self, pipe: Pipe) -> None:
        """Bytes arrived at an end that is closed: its peer gets a reset behind what it was sent."""
        (self.downward if pipe is self.upward else self.upward).reset(behind=True)

    def darken(self) -> None:
        self.dark_from = trio.current_time()
        self.reset_at = NEVER
        self.upward.darken()
        self.downward.darken()
