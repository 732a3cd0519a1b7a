"""The channels of one connection, made in one place.

    reader -> inbound -> limiter -> admitted -> bridge -> outbound -> writer
           (audio) ...................^

Each end has one owner, which closes it with a plain `with` on its first line: the actor that the
picture shows at it, except for `outbound`. Both its ends belong to the supervisor, for they must be
open as long as the tree lives: the timers speak through the bridge too, and when the writer is done
others may still wait to say something, which is no fault of theirs.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import attrs
import trio

from voxtral_actors.limits import INBOUND_MESSAGES, OUTBOUND_EVENTS
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.commands import Inbound
from voxtral_actors.protocol.events import Event

Outbound: TypeAlias = Event | Close
T = TypeVar("T")


@attrs.frozen
class Wiring:
    """Both ends of every channel of a connection."""

    inbound_send: trio.MemorySendChannel[Inbound]
    inbound_recv: trio.MemoryReceiveChannel[Inbound]
    admitted_send: trio.MemorySendChannel[Inbound]
    admitted_recv: trio.MemoryReceiveChannel[Inbound]
    outbound_send: trio.MemorySendChannel[Outbound]
    outbound_recv: trio.MemoryReceiveChannel[Outbound]


async def pass_on(channel: trio.MemorySendChannel[T], item: T) -> None:
    """Send, and keep the turn while there is room: `send` always gives it away, and that costs as
    much as the rest of a hop. Whoever loops over this gives way where it receives."""
    try:
        channel.send_nowait(item)
    except (trio.WouldBlock, trio.BrokenResourceError):
        # Of a receiver that is gone `send` knows better: here it has only been cancelled first.
        await channel.send(item)


def open_wiring() -> Wiring:
    """Make the channels."""
    return Wiring(
        *trio.open_memory_channel[Inbound](INBOUND_MESSAGES),
        *trio.open_memory_channel[Inbound](INBOUND_MESSAGES),
        *trio.open_memory_channel[Outbound](OUTBOUND_EVENTS),
    )
