"""Ways in which a client ends utterance "a", whatever state it is in."""

from __future__ import annotations

from tests.connection.fakes import Connection
from voxtral_actors.protocol import events


async def cancel(connection: Connection) -> None:
    connection.client.cancel("a")
    await connection.client.hear(events.Cancelled, "a")


async def leave(connection: Connection) -> None:
    connection.client.leave()
    await connection.ended()


async def end(connection: Connection) -> None:
    connection.client.say("end")
    await connection.ended()
    connection.client.the(events.Cancelled, "a")
