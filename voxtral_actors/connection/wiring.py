"""The queues of one connection, made in one place.

    reader -> inbound -> limiter -> admitted -> bridge -> outbound -> writer

Each end has one owner, which closes it with a plain `with` on its first line: the actor that the
picture shows at it, except for `outbound`. Both its ends belong to the supervisor, for they must be
open as long as the tree lives: the timers speak through the bridge too, and when the writer is done
others may still wait to say something, which is no fault of theirs.

A hop over a queue costs a turn of a task, which for 80 ms of audio is more than all that is done
with it. So nearly all that passes, audio that is free and text that the socket has room for, does
not hop: while an actor is `idle`, who would put something into its queue calls its `pass_by` first,
which acts on it there and then, without a wait, or says that it cannot. What waits, waits in the
queues, in order.
"""

from __future__ import annotations

from typing import Generic, TypeAlias, TypeVar

import attrs
import trio

from voxtral_actors.limits import INBOUND_MESSAGES, OUTBOUND_EVENTS
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.commands import Inbound
from voxtral_actors.protocol.events import Event

Outbound: TypeAlias = Event | Close
T = TypeVar("T")


class Queue(Generic[T]):
    """A memory channel to one actor, which tells whether that actor may be passed by."""

    def __init__(self, size: int) -> None:
        self.send, self.receive = trio.open_memory_channel[T](size)
        self.idle = False
        """The actor waits and nothing is on its way to it: what is done now overtakes nothing."""

    async def put(self, item: T) -> None:
        """Send. Everything goes through here, or `idle` would not be true."""
        self.idle = False
        await pass_on(self.send, item)

    def put_nowait(self, item: T) -> None:
        """The same, where there is room."""
        self.idle = False
        self.send.send_nowait(item)

    async def take(self) -> T:
        """Receive: for the actor. It keeps its turn as long as there is something.

        Raises:
            trio.EndOfChannel: nothing more will come.
        """
        try:
            return self.receive.receive_nowait()
        except trio.WouldBlock:
            pass
        self.idle = True
        try:
            return await self.receive.receive()
        finally:
            self.idle = False


@attrs.frozen
class Wiring:
    """Every queue of a connection."""

    inbound: Queue[Inbound]
    admitted: Queue[Inbound]
    outbound: Queue[Outbound | None]
    """None stands for what the socket has taken a part of already."""

    def open_ends(self) -> int:
        """Six at most while the connection lives, none afterwards."""
        channels = (self.inbound.send, self.admitted.send, self.outbound.send)
        figures = [channel.statistics() for channel in channels]
        return sum(f.open_send_channels + f.open_receive_channels for f in figures)


def open_wiring() -> Wiring:
    """Make the queues."""
    return Wiring(Queue(INBOUND_MESSAGES), Queue(INBOUND_MESSAGES), Queue(OUTBOUND_EVENTS))


async def pass_on(channel: trio.MemorySendChannel[T], item: T) -> None:
    """Send, and keep the turn while there is room: `send` always gives it away, and that costs as
    much as the rest of a hop. Whoever loops over this gives way where it receives."""
    try:
        channel.send_nowait(item)
    except (trio.WouldBlock, trio.BrokenResourceError):
        # Of a receiver that is gone `send` knows better: here it has only been cancelled first.
        await channel.send(item)
