"""How far a connection can come: each stage brings one there, on a live engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import trio
from trio.testing import wait_all_tasks_blocked

from tests.connection.fakes import Connection
from tests.engine.scripted import Script, speech
from voxtral_actors.protocol import events

LIVE = Script(step_s=0.08)
Stage: TypeAlias = Callable[[Connection], Awaitable[None]]


async def just_connected(_: Connection) -> None:
    """Not even the first event is out."""


async def quiet(connection: Connection) -> None:
    await connection.client.hear(events.SessionCreated)


async def started(connection: Connection) -> None:
    connection.client.start("a")
    await wait_all_tasks_blocked()


async def heard(connection: Connection) -> None:
    connection.client.start("a")
    connection.client.audio(speech(2))
    await connection.client.hear(events.Delta, "a")


async def finalising(connection: Connection) -> None:
    connection.client.utter("a", speech(2))
    await connection.client.hear(events.Delta, "a")


async def overlapping(connection: Connection) -> None:
    connection.client.utter("a", speech(2))
    connection.client.start("b")
    connection.client.audio(speech(2))
    await connection.client.hear(events.Delta, "a")


async def done(connection: Connection) -> None:
    connection.client.utter("a", speech(1))
    await connection.client.hear(events.Done, "a")


async def not_listening(connection: Connection) -> None:
    """The writer has one event in hand, its queue is full, and others wait to say more."""
    connection.client.utter("a", speech(4))
    await connection.client.hear(events.Delta, "a")
    connection.client.stop_reading()
    for _ in range(20):
        connection.client.say("ping")
    await trio.sleep(3)


async def winding_down(connection: Connection) -> None:
    connection.client.start("a")
    connection.client.audio(speech(8))
    await wait_all_tasks_blocked()
    connection.house.drain.start(trio.current_time() + 6)
    await trio.sleep(2)


STAGES: Mapping[str, Stage] = {
    stage.__name__: stage
    for stage in (
        just_connected, quiet, started, heard, finalising, overlapping, done, not_listening,
        winding_down,
    )
}  # fmt: skip
