"""The reader: takes frames off the transport and decodes them. It ends when the client is gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.transport import Disconnected, Transport
from voxtral_actors.connection.wiring import Queue
from voxtral_actors.protocol.codec import decode
from voxtral_actors.protocol.commands import Inbound


async def run(
    transport: Transport,
    inbound: Queue[Inbound],
    activity: Activity,
    max_bytes: int,
    pass_by: Callable[[Inbound], Awaitable[bool]],
) -> None:
    """Read until the client is gone. `pass_by` takes what need not go through `inbound`."""
    with inbound.send:
        while True:
            try:
                frame = await transport.receive()
            except Disconnected:
                return
            activity.touch()
            message = decode(frame, max_bytes)
            if not await pass_by(message):
                await inbound.put(message)
