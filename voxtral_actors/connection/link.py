"""One open engine stream of an utterance, with what waits for it."""

from __future__ import annotations

import attrs
import trio

from voxtral_actors.connection.backlog import Backlog, BacklogStatistics
from voxtral_actors.engine.port import EngineStream


@attrs.define
class Link:
    """One open engine stream, its backlog, and the scope that ends a wait for a stalled engine."""

    stream: EngineStream
    backlog: Backlog
    stall: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    opened_at: float = attrs.field(factory=trio.current_time)

    def expect(self) -> None:
        """The engine has something to do, or more than before."""
        if self.stall.deadline != self.backlog.deadline:  # setting it is dear
            self.stall.deadline = self.backlog.deadline


@attrs.frozen
class LinkStatistics:
    """A moment of one open engine stream."""

    opened_at: float
    audio: BacklogStatistics
