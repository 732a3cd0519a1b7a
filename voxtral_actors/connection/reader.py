"""The reader: takes frames off the transport and decodes them. It ends when the client is gone."""

from __future__ import annotations

from collections.abc import Callable

import trio

from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.transport import Disconnected, Transport
from voxtral_actors.connection.wiring import pass_on
from voxtral_actors.protocol.codec import decode
from voxtral_actors.protocol.commands import Inbound


async def run(
    transport: Transport,
    inbound: trio.MemorySendChannel[Inbound],
    activity: Activity,
    max_bytes: int,
    pass_by: Callable[[Inbound], bool],
) -> None:
    """Read until the client is gone. `pass_by` takes what need not go through `inbound`."""
    with inbound:
        while True:
            try:
                frame = await transport.receive()
            except Disconnected:
                return
            activity.touch()
            message = decode(frame, max_bytes)
            if not pass_by(message):
                await pass_on(inbound, message)
