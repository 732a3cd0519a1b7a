"""What the tests of reconnecting share: servers that die, and a client that speaks."""

from __future__ import annotations

from typing import TypeAlias

import trio

from tests.client.stub import CREATED, Peer
from voxtral_actors.client import (
    Reconnect,
    Revised,
    Utterance,
    UtteranceEvent,
)
from voxtral_actors.protocol.commands import Finalise, Start
from voxtral_actors.protocol.events import Delta, Done, Usage

LIMIT_S = 1000
SECOND = bytes(range(250)) * 128
QUICK = Reconnect(jitter=lambda: 1.0)
Clock: TypeAlias = trio.testing.MockClock


def text_of(events: list[UtteranceEvent]) -> str:
    """What a caller who follows the rules shows."""
    shown = ""
    for event in events:
        match event:
            case Delta():
                shown += event.delta
            case Revised():
                shown = event.text
            case _:
                pass
    return shown


async def dies_after(peer: Peer, *said: str, seconds: float = 1) -> None:
    """Takes so much audio, says something, and is gone."""
    await peer.send(CREATED)
    start = await peer.expect(Start)
    while len(peer.audio) < seconds * 32_000:
        await peer.receive()
    for text in said:
        await peer.send(Delta("s", start.request_id, text, 80))


async def hears(peer: Peer, *said: str) -> None:
    """Takes one whole utterance and answers with this text."""
    await peer.send(CREATED)
    last = await peer.expect(Finalise)
    for text in said:
        await peer.send(Delta("s", last.request_id, text, 80))
    usage = Usage(1, 1, 2, len(peer.audio) / 32_000)
    await peer.send(Done("s", last.request_id, "".join(said), usage))
    await trio.sleep_forever()


async def speak(utterance: Utterance, seconds: int, *, pause_s: float = 1) -> None:
    for _ in range(seconds):
        await utterance.send(SECOND)
        await trio.sleep(pause_s)
    await utterance.finish()
