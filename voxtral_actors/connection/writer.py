"""The writer: the only one that sends. It ends with the Close, or when the client stops reading.

Each message has a deadline of its own. A client that has not taken one in that time is not reading,
and nothing can be told to it any more. Nearly every message is taken at once, and needs none.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.transport import Disconnected, Transport
from voxtral_actors.connection.wiring import Outbound
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.codec import encode


async def run(
    transport: Transport,
    outbound: trio.MemoryReceiveChannel[Outbound],
    deadline: float,
    closing: Callable[[Close], None],
    moved: Activity,
) -> None:
    """Send what comes until a Close, or until the client is gone.

    `closing` is told of a Close before it is sent: once it is out, the client hangs up, and this
    task may be cancelled for that before it gets any further. `moved` tells when an item was taken.
    """
    with trio.CancelScope() as scope:
        async for item in outbound:
            moved.touch()
            try:
                if not isinstance(item, Close) and transport.write(encode(item)):
                    continue
                scope.deadline = moved.last + deadline
                if isinstance(item, Close):
                    closing(item)
                    await transport.close(item.spec.code, item.spec.slug)
                    return
                await transport.drain()
            except Disconnected:
                return
            scope.deadline = math.inf
    if scope.cancelled_caught:
        closing(Close.SLOW_CONSUMER)
