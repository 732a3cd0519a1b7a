"""The drain actor: lets a connection finish what it is doing when the server stops.

`Drain` is the server's wish, shared by all connections. From the moment it starts no utterance
starts any more; the running ones may go on until `grace` before the deadline, then they are
finalised, and at the deadline at the latest the connection is closed.
"""

from __future__ import annotations

import math

import trio

from voxtral_actors.connection.bridge import Bridge
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.signals import StopStarts


class Drain:
    """Whether the server drains, and until when (on trio's clock)."""

    def __init__(self) -> None:
        self.deadline = math.inf
        self._started = trio.Event()

    @property
    def started(self) -> bool:
        return self._started.is_set()

    def start(self, deadline: float) -> None:
        """Begin to drain; of several calls the first one counts."""
        if not self.started:
            self.deadline = deadline
            self._started.set()

    async def wait(self) -> None:
        await self._started.wait()


async def run(bridge: Bridge, drain: Drain, grace: float) -> None:
    """Wait for the drain, let utterances finish, close."""
    await drain.wait()
    await bridge.tell(StopStarts())
    grace = min(grace, (drain.deadline - trio.current_time()) / 2)  # a short drain is shared out
    with trio.move_on_at(drain.deadline - grace):
        await bridge.quiet()
    await bridge.wind_down(Close.DRAINING, grace)
