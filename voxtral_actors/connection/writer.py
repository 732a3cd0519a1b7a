"""The writer: all that the client is told goes through it. It ends with the Close, or when the
client stops reading.

Nearly every event is taken by the socket at once, and passes by this actor (see `wiring`). The task
waits for the client, and for a moment at most with each event: a client that has not taken one in
that time is not reading, and nothing can be told to it any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.transport import Disconnected, Transport
from voxtral_actors.connection.wiring import Outbound, Queue
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.codec import encode


class Writer:
    """The actor; one `run` per object.

    `deadline` is the time for one event, in seconds. `closing` is told of a Close before it is
    sent: once it is out, the client hangs up, and `run` may be cancelled for that before it gets
    any further.
    """

    def __init__(
        self,
        transport: Transport,
        outbound: Queue[Outbound | None],
        deadline: float,
        closing: Callable[[Close], None],
    ) -> None:
        self.moved = Activity()
        """When it last took an event; what passes by it does not count."""
        self._transport = transport
        self._outbound = outbound
        self._deadline = deadline
        self._closing = closing

    def pass_by(self, item: Outbound) -> bool:
        """The bridge's: send an event, unless it would overtake something. False: nothing was done,
        put it into `outbound`."""
        if not self._outbound.idle or isinstance(item, Close):
            return False
        try:
            if not self._transport.write(encode(item)):
                self._outbound.put_nowait(None)
        except Disconnected:
            return False  # `run` finds the same
        return True

    async def run(self) -> None:
        """Send what comes until a Close, or until the client is gone."""
        with trio.CancelScope() as scope:
            while True:
                item = await self._outbound.take()
                self.moved.touch()
                due = self.moved.last + self._deadline
                try:
                    if isinstance(item, Close):
                        scope.deadline = due
                        self._closing(item)
                        await self._transport.close(item.spec.code, item.spec.slug)
                        return
                    if item is None or not self._transport.write(encode(item)):
                        scope.deadline = due
                        await self._transport.drain()
                        scope.deadline = math.inf
                except Disconnected:
                    return
        if scope.cancelled_caught:
            self._closing(Close.SLOW_CONSUMER)
