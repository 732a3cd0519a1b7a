"""The writer: the only one that sends. It ends with the Close, or when the client stops reading.

Each message has a deadline of its own. A client that has not taken one in that time is not reading,
and nothing can be told to it any more.
"""

from __future__ import annotations

import trio

from voxtral_actors.connection.transport import Disconnected, Transport
from voxtral_actors.connection.wiring import Outbound
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.codec import encode


async def run(
    transport: Transport, outbound: trio.MemoryReceiveChannel[Outbound], deadline: float
) -> Close | Disconnected:
    """Send what comes until a Close; returns it, or why it did not come to that."""
    with outbound:
        async for item in outbound:
            try:
                with trio.move_on_after(deadline) as scope:
                    if isinstance(item, Close):
                        await transport.close(item.spec.code, item.spec.slug)
                    else:
                        await transport.send(encode(item))
            except Disconnected as gone:
                return gone
            if scope.cancelled_caught:
                return Close.SLOW_CONSUMER
            if isinstance(item, Close):
                return item
    raise AssertionError("outbound is closed after the tree")
