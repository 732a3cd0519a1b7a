"""What the tests of reconnecting share: servers that die, and a client that speaks."""

from __future__ import annotations

from typing import TypeAlias

import attrs
import trio

from tests.client.stub import CREATED, Peer
from tests.engine.script import FRAME_BYTES, speech, transcript
from tests.server.wire_client import KEY
from voxtral_actors.client import (
    Reconnect,
    Revised,
    Session,
    Statistics,
    Utterance,
    UtteranceEvent,
    connect,
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


@attrs.define
class Speaker:
    """Speaks one utterance after the other, until it is told to stop."""

    seed: int
    reconnect: Reconnect
    pace_s: float = 0.01
    """Between two frames of 80 ms."""
    said: list[tuple[str, str, str]] = attrs.field(factory=list)
    """What must be heard, what was told on the way, and what the end said."""
    statistics: Statistics | None = None

    async def run(self, url: str, stop: trio.Event, frames: int) -> None:
        async with connect(url, api_key=KEY, reconnect=self.reconnect) as session:
            while not stop.is_set():
                await self._speak(session, speech(frames * 0.08, seed=self.seed + len(self.said)))
            self.statistics = session.statistics()

    async def _speak(self, session: Session, audio: bytes) -> None:
        async def send() -> None:
            for start in range(0, len(audio), FRAME_BYTES):
                await utterance.send(audio[start : start + FRAME_BYTES])
                await trio.sleep(self.pace_s)
            await utterance.finish()

        async with session.utterance() as utterance, trio.open_nursery() as nursery:
            nursery.start_soon(send)
            events = [event async for event in utterance]
            text = await utterance.text()
        self.said.append((transcript(audio), text_of(events), text))

    def assert_heard_rightly(self, *, reconnects: int) -> None:
        """Every word once, over so many connections at least."""
        assert self.said
        for expected, told, ended in self.said:
            assert told == ended == expected, f"{told!r}, {ended!r} for {expected!r}"
        assert self.statistics is not None
        assert self.statistics.reconnects >= reconnects


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
