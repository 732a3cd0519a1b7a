"""One open engine stream of an utterance, with what waits for it."""

from __future__ import annotations

import math

import attrs
import trio

from voxtral_actors.connection.backlog import Backlog, BacklogStatistics
from voxtral_actors.engine.port import EngineEvent, EngineStream


@attrs.define
class Link:
    """One open engine stream, its backlog, and the scope that ends a wait for a stalled engine."""

    stream: EngineStream
    backlog: Backlog
    stall: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    opened_at: float = attrs.field(factory=trio.current_time)
    _listening: bool = False
    _due: float = math.inf  # the deadline of `stall`

    async def receive(self) -> EngineEvent:
        """What the engine says next; cancelled by `stall`, in which it is called, if the engine has
        stalled before that.

        Raises:
            trio.EndOfChannel: it says nothing more.
        """
        self._listening = True
        self.expect()
        try:
            return await self.stream.receive()
        finally:
            self._listening = False
            self._expect_by(math.inf)

    def expect(self) -> None:
        """The engine has something to do, or more than before."""
        if self._listening:
            self._expect_by(self.backlog.deadline)

    def _expect_by(self, deadline: float) -> None:
        if self._due != deadline:  # setting it is dear, and it seldom changes
            self._due = self.stall.deadline = deadline


@attrs.frozen
class LinkStatistics:
    """A moment of one open engine stream."""

    opened_at: float
    audio: BacklogStatistics
