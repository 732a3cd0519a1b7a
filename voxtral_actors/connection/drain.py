"""The drain actor: lets a connection finish what it is doing when the server stops.

`Drain` is the server's wish, shared by all connections. It has a deadline from its start, or gets
one later, or never. A connection ends in three steps, and `share`, drawn for each connection from 0
to 1, says when in the spread its turn is: so that neither the closes nor the clients who come back
elsewhere come all at once.

At its turn it starts no utterance any more, and is closed as soon as none is alive. With a deadline
its utterance is finalised `grace` before that, earlier by as much as its turn is late; and at the
deadline at the latest it is closed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from voxtral_actors.connection.bridge import Bridge
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.signals import StopStarts

DRAIN_SPREAD_S: Final = 5.0
"""From the first turn to the last one: a thousand clients come back at two hundred a second, and
whoever says nothing has left long before the deadline. [guess]"""

SPREAD_SHARE: Final = 0.25
"""Of a short drain the turns take so much, and the rest is for utterances to finish."""


class Drain:
    """Whether the server drains, and until when (on trio's clock)."""

    def __init__(self) -> None:
        self.deadline = math.inf
        self._started = trio.Event()
        self._patient: set[trio.CancelScope] = set()

    @property
    def started(self) -> bool:
        return self._started.is_set()

    def start(self, deadline: float = math.inf) -> None:
        """Begin to drain. A drain without a deadline may get one later; the first one counts."""
        self._started.set()
        if self.deadline == math.inf and deadline < math.inf:
            self.deadline = deadline
            for scope in self._patient:
                scope.cancel(reason="the drain has a deadline")

    async def wait(self) -> None:
        await self._started.wait()

    @contextmanager
    def patience(self) -> Iterator[trio.CancelScope]:
        """A scope that is cancelled as soon as there is a deadline."""
        with trio.CancelScope() as scope:
            if self.deadline < math.inf:
                scope.cancel(reason="the drain has a deadline")
            self._patient.add(scope)
            try:
                yield scope
            finally:
                self._patient.discard(scope)

    def spread(self) -> float:
        """Seconds from now in which all connections have their turn."""
        return min(DRAIN_SPREAD_S, SPREAD_SHARE * max(self.deadline - trio.current_time(), 0.0))


async def run(bridge: Bridge, drain: Drain, share: float, grace: float) -> None:
    """Wait for the drain, let utterances finish, close."""
    await drain.wait()
    with drain.patience() as patience:
        await _leave(bridge, share * drain.spread())
    if patience.cancelled_caught:
        turn = share * drain.spread()
        grace = min(grace, (drain.deadline - trio.current_time()) / 2)  # a short drain is shared out
        with trio.move_on_at(drain.deadline - grace - turn):
            await _leave(bridge, turn)
    await bridge.wind_down(Close.DRAINING, grace)


async def _leave(bridge: Bridge, turn: float) -> None:
    await trio.sleep(turn)
    await bridge.tell(StopStarts())
    await bridge.quiet()
