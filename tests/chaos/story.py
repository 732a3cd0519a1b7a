"""What one simulated client says, kept so that it can be held against what it hears.

A `Story` is a client's account: each utterance with its audio and its times, the messages that
deserve an error, whether it said `end`, sent something too big, and so on. Plans (`plans.py`) write
it by speaking through it; the judge (`judge.py`) reads it when the client's socket has ended.

Request ids are `<client>.<n>`, each used once, so an engine stream's label names its utterance.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import attrs
import trio

from tests.chaos.peer import Peer
from tests.chaos.toxics import Toxics
from tests.engine.scripted import speech
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE
from voxtral_actors.protocol.events import Cancelled, Done, Error, Event

LIVE_CHUNK_S = 0.08


@attrs.define
class Said:
    """One utterance as its client knows it; times are infinite until they come."""

    name: str
    started_at: float
    pcm: bytearray = attrs.field(factory=bytearray)
    finalised_at: float = math.inf
    cancelled_at: float = math.inf
    superseded_at: float = math.inf


@attrs.define(eq=False)
class Story:
    """One client's account."""

    name: str
    rng: random.Random
    toxics: Toxics
    peer: Peer
    limit_s: float
    """By then an utterance of a client that waits has had its end."""
    go: trio.Event
    """The storm's common moment, for plans that act all at once."""
    said: dict[str, Said] = attrs.field(factory=dict)
    bad: int = 0
    """Messages that cannot be acted on."""
    said_end: bool = False
    too_big: bool = False
    wrong_key: bool = False
    deaf: bool = False
    """It stopped reading."""
    rubbish: bool = False
    """It sent bytes that are no WebSocket."""

    @property
    def active(self) -> Said | None:
        """The utterance that takes audio, as far as this client knows."""
        newest = next(reversed(self.said.values()), None)
        closed = newest is None or min(newest.finalised_at, newest.cancelled_at) < math.inf
        return None if closed else newest

    def start(self) -> Said:
        now = trio.current_time()
        if (active := self.active) is not None:
            active.superseded_at = now
        name = f"{self.name}.{len(self.said) + 1}"
        self.said[name] = Said(name, now)
        self.peer.world.engine.begun[name] = now
        self.peer.note(f"starts {name}")
        self.peer.client.start(name)
        return self.said[name]

    def audio(self, seconds: float) -> None:
        """Speech in one message, which may be binary."""
        active = self.active
        assert active is not None
        pcm = speech(seconds, self.rng.randrange(2**32))
        active.pcm += pcm
        self.peer.client.audio(pcm, self.rng.choice((None, active.name)))

    def hush(self, seconds: float) -> None:
        """Silence in one message: the engine works on it, and has nothing to say."""
        active = self.active
        assert active is not None
        pcm = bytes(round(seconds * SAMPLE_RATE) * BYTES_PER_SAMPLE)
        active.pcm += pcm
        self.peer.client.audio(pcm)

    async def speak(self, seconds: float, *, pace: float = 1.0) -> None:
        """Audio in chunks; a pace of 0 is as fast as the network takes it."""
        left = seconds
        while left > 0:
            chunk = self.rng.choice((LIVE_CHUNK_S, 0.2, 0.5))
            self.audio(chunk)
            left -= chunk
            await trio.sleep(chunk * pace)

    def finalise(self) -> Said:
        active = self.active
        assert active is not None
        active.finalised_at = trio.current_time()
        self.peer.note(f"finalises {active.name} {len(active.pcm) // 32} ms")
        self.peer.client.finalise(active.name)
        return active

    def cancel(self, said: Said) -> None:
        said.cancelled_at = min(said.cancelled_at, trio.current_time())
        self.peer.note(f"cancels {said.name}")
        self.peer.client.cancel(said.name)

    def end(self) -> None:
        self.said_end = True
        self.peer.note("says end")
        self.peer.client.say("end", "bye")

    # --- Hearing -----------------------------------------------------------------------------

    def terminal(self, said: Said) -> tuple[float, Event] | None:
        """When and how an utterance ended, if it did."""
        for at, event in zip(self.peer.heard_at, self.peer.client.heard, strict=False):
            if event.request_id == said.name and is_terminal(event):
                return at, event
        return None

    async def settle(self, several: Iterable[Said] | None = None) -> None:
        """Wait for the end of these utterances, or of all; P11 says that it comes in time.

        The time counts from when the server can have heard all of them. Who hears nothing for so
        long on a network that loses gives up: nobody waits once more for every sentence.
        """
        waited = list(self.said.values() if several is None else several)
        with trio.move_on_after(self.limit_s + self.peer.unsent_s) as patience:
            while any(self.terminal(said) is None for said in waited):
                await self.peer.news()
        if patience.cancelled_caught and self.toxics.loses:
            self.peer.hang_up("reset")
            await trio.sleep_forever()  # the plan ends with the connection
        if patience.cancelled_caught:
            left = [said.name for said in waited if self.terminal(said) is None]
            self.peer.world.complain(f"P11 no end after {self.limit_s:g} s: {left}")

    async def wait_closed(self, limit_s: float, why: str) -> None:
        """Wait for the server to close, which cancels the plan; else it is a violation."""
        await trio.sleep(limit_s + self.peer.unsent_s + 2 * self.toxics.delay_s)
        if not self.toxics.loses:
            self.peer.world.complain(f"{self.name}: not closed within {limit_s:g} s: {why}")


def is_terminal(event: Event) -> bool:
    """Whether it ends the utterance whose id it has."""
    match event:
        case Done():
            return True
        case Cancelled(reason=reason):
            return reason != "no_active_request"
        case Error():
            return event.code not in {"invalid_message", "invalid_payload", "rate_limited"}
        case _:
            return False


def samples(pcm: bytes | bytearray) -> int:
    return len(pcm) // BYTES_PER_SAMPLE


def seconds(pcm: bytes | bytearray) -> float:
    return samples(pcm) / SAMPLE_RATE
