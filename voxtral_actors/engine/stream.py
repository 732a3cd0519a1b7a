"""The connection's end of one engine stream: a mailbox that merges what is not fetched in time.

The engine side puts events in with `put`, which never blocks and never refuses; the connection
takes them out with `receive`. Between two calls of `receive` texts are joined and positions move
forward, so a slow client costs the memory of its own text and nothing else. A text keeps its own
position all the same: what it is about is not what the engine has used since.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from voxtral_actors.engine.port import (
    BackendStream,
    EngineEvent,
    Failed,
    Finished,
    Progress,
    Text,
)


class ActorStream:
    """One stream, identified by a generation number that the engine actor never uses twice."""

    def __init__(self, generation: int, on_abort: Callable[[int], None]) -> None:
        self.generation = generation
        self.backend: BackendStream | None = None
        self._on_abort = on_abort
        self._text: list[tuple[str, int]] = []
        self._consumed = 0
        self._moved = False
        self._last: Finished | Failed | None = None
        self._finished = False  # no more audio is taken
        self._sealed = False  # the last event is here, or nobody wants it
        self._aborted = False
        self._arrived = trio.lowlevel.ParkingLot()

    @property
    def over(self) -> bool:
        """Whether it takes no event any more: the last one came, or it was aborted."""
        return self._sealed

    # --- The engine's side -------------------------------------------------------------------

    def put(self, event: EngineEvent) -> bool:
        """Add an event; False if the stream is over and it was dropped."""
        if self._sealed:
            return False
        match event:
            case Text(text=text, consumed=consumed):
                self._move(consumed)
                if text:
                    self._text.append((text, self._consumed))
            case Progress(consumed=consumed):
                self._move(consumed)
            case Finished() | Failed():
                self._last = event
                self._sealed = True
        if self._arrived:  # else there is more to fetch already
            self._arrived.unpark_all()
        return True

    def _move(self, consumed: int) -> None:
        self._moved = True
        self._consumed = max(self._consumed, consumed)

    # --- The connection's side (port.EngineStream) -------------------------------------------

    def feed(self, pcm: bytes) -> None:
        if self.backend is not None and not self._finished and not self._sealed:
            self.backend.feed(pcm)

    def finish(self) -> None:
        if self.backend is not None and not self._finished and not self._sealed:
            self._finished = True
            self.backend.finish()

    def abort(self) -> None:
        if self._aborted:
            return
        self._aborted = self._sealed = True
        self._text.clear()
        self._moved = False
        self._last = None
        self._arrived.unpark_all()
        self._on_abort(self.generation)

    async def receive(self) -> EngineEvent:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self._text:
                pieces = tuple(self._text)
                self._text.clear()
                texts, ends = zip(*pieces, strict=True)
                self._moved = self._consumed > ends[-1]
                return Text("".join(texts), ends[-1], pieces)
            if self._moved:
                self._moved = False
                return Progress(self._consumed)
            if self._last is not None:
                last, self._last = self._last, None
                return last
            if self._sealed:
                raise trio.EndOfChannel
            await self._arrived.park()
