"""The drain actor: lets a connection finish what it is doing when the server stops.

`Drain` is the server's wish, shared by all connections. It has a deadline from its start, or gets
one later, or never. Connections have their turns one after the other, so that the clients who come
back elsewhere do not come all at once: `share`, a random number from 0 to 1, says where in the
spread a connection's turn is.

At its turn a connection starts no utterance any more, and it is closed as soon as none is alive;
one that says nothing, at once. With a deadline, what still runs is finalised `grace` before that,
and earlier by as much as its turn was late; at the deadline at the latest it is closed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from voxtral_actors.connection.bridge import Bridge
from voxtral_actors.limits import DRAIN_SPREAD_S, DRAIN_SPREAD_SHARE
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.signals import StopStarts


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

    def left(self) -> float:
        return self.deadline - trio.current_time()

    def spread(self) -> float:
        """Seconds from now in which all connections have their turn."""
        return min(DRAIN_SPREAD_S, DRAIN_SPREAD_SHARE * max(self.left(), 0.0))


async def run(bridge: Bridge, drain: Drain, share: float, grace: float) -> None:
    """Wait for the drain, let utterances finish, close."""
    await drain.wait()
    with drain.patience() as patience:
        await _leave(bridge, share * drain.spread())
    if patience.cancelled_caught:
        # A short drain is shared out: at least half of it is for those who still speak.
        turn, grace = share * drain.spread(), min(grace, drain.left() / 2)
        with trio.move_on_at(drain.deadline - grace - turn):
            await _leave(bridge, turn)
    await bridge.wind_down(Close.DRAINING, grace)


async def _leave(bridge: Bridge, turn: float) -> None:
    await trio.sleep(turn)
    await bridge.tell(StopStarts())
    await bridge.quiet()
