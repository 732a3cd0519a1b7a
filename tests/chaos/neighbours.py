"""Victims who speak beside fuzzers, and the same victims alone: they must hear the same.

    python -m tests.chaos.neighbours 17            # seed 17 once more, with all that happened
    python -m tests.chaos.neighbours 1000 2000     # seeds to hunt through; stops at the first

A victim plays a script that its own name and the seed choose: utterances at the pace of speech in
pieces of any size, base64 or binary, some cancelled, some interrupted by the next. What it hears,
and when, is compared with a world in which there is nobody else. The fuzzers come and go all the
while, behind networks of their own, and send what `neighbours_fuzz.py` makes up.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from random import Random
from typing import TypeAlias

import attrs
import trio

from tests.chaos.neighbours_fuzz import frames, no_handshake
from tests.chaos.network import MemoryStream
from tests.chaos.toxics import any_toxics
from tests.chaos.world import World, open_world, simulate
from tests.engine.scripted import speech
from tests.server.wire_client import KEY
from tests.server.wire_helpers import upgrade_request
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE
from voxtral_actors.protocol.codec import encode
from voxtral_actors.protocol.events import Cancelled, Delta, Done, Event, Pong, SessionCreated

VICTIMS = 5
FUZZERS = 4
BYTES_A_SECOND = SAMPLE_RATE * BYTES_PER_SAMPLE
GONE = trio.BrokenResourceError, trio.ClosedResourceError

Heard: TypeAlias = dict[str, list[tuple[float, str]]]
"""By request id: the messages, and when they came, in seconds since the victim did. What comes at
the same moment has no order between two utterances, and deltas of one moment may come as one."""


async def victim(world: World, name: str, seed: int) -> Heard:
    """Play the victim's script; returns all that it heard."""
    rng = Random(f"{seed}/{name}")
    await trio.sleep(rng.random())
    async with world.peer(name) as peer:
        client, came = peer.client, trio.current_time()
        await client.hear(SessionCreated)
        for number in range(rng.randint(2, 4)):
            request_id = f"{name}.{number}"
            pcm = speech(rng.uniform(0.2, 1.6), seed=rng.getrandbits(32))
            client.start(request_id)
            at = 0
            while at < len(pcm):
                size = BYTES_PER_SAMPLE * rng.choice((320, 1280, 1281, 2560))
                client.audio(pcm[at : at + size], rng.choice((None, request_id)))
                await trio.sleep(size / BYTES_A_SECOND)
                at += size
            match rng.randrange(6):
                case 0:
                    client.cancel(request_id, reason="had enough")
                    await client.hear(Cancelled, request_id)
                case 1:  # the next start interrupts it
                    continue
                case _:
                    client.finalise(request_id)
                    if rng.random() < 0.7:
                        await client.hear(Done, request_id)
        await trio.sleep(1)  # for what belongs to the moment of the last word
        client.say("ping", "last")
        await client.hear(Pong, "last")
    return _told(client.heard, [round(at - came, 6) for at in peer.heard_at])


def _told(heard: Sequence[Event], times: Sequence[float]) -> Heard:
    told: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for at, event in zip(times, heard, strict=True):
        so_far = told[event.request_id]
        match event:
            case Delta() if so_far and so_far[-1][0] == at:
                so_far[-1] = at, so_far[-1][1] + event.delta
            case Delta():
                so_far.append((at, event.delta))
            case SessionCreated():  # the server's own name for the session is another one
                so_far.append((at, encode(attrs.evolve(event, id="", session_id=""))))
            case _:
                so_far.append((at, encode(event)))
    return dict(told)


async def fuzzer(world: World, number: int, seed: int, over: trio.Event) -> None:
    """One client after another, until the victims have finished."""
    rng = Random(f"{seed}/fuzzer/{number}")
    while not over.is_set():
        stream = await world.network.connect(any_toxics(rng, 3))
        async with trio.open_nursery() as nursery:
            if rng.random() < 0.9:  # and one in ten never reads
                nursery.start_soon(_read, stream)
            with trio.move_on_after(rng.choice((0.2, 2, 10))), suppress(*GONE):
                await _attack(stream, rng)
            nursery.cancel_scope.cancel(reason="enough")
        match rng.randrange(4):
            case 0:
                stream.reset()
            case 1:
                stream.vanish()
            case _:
                await trio.aclose_forcefully(stream)
        with trio.move_on_after(rng.random()):
            await over.wait()


async def _attack(stream: MemoryStream, rng: Random) -> None:
    key = KEY if rng.random() < 0.9 else "wrong"
    request = upgrade_request(f"/ws?api_key={key}")
    await stream.send_all(request if rng.random() < 0.9 else no_handshake(rng))
    await trio.sleep(rng.choice((0, 0.5)))  # what comes before the answer is refused
    while True:
        data = frames(rng)
        cut = rng.randrange(len(data) + 1) if rng.random() < 0.2 else len(data)
        await stream.send_all(data[:cut])
        await trio.sleep(rng.choice((0, 0.01, 0.1, 0.4)))
        await stream.send_all(data[cut:])


async def _read(stream: MemoryStream) -> None:
    with suppress(*GONE):
        while await stream.receive_some():
            pass


# --- Worlds --------------------------------------------------------------------------------------


def world_of(seed: int) -> AbstractAsyncContextManager[World]:
    """Messages are small, so that too large ones are too."""
    return open_world(seed, WS_MAX_MESSAGE_BYTES="100000", WS_IDLE_TIMEOUT_S="60")


def names(seed: int) -> list[str]:
    return [f"v{seed}.{number}" for number in range(VICTIMS)]


def alone(seed: int, name: str) -> Heard:
    """What a victim hears that has the server for itself."""

    async def main() -> Heard:
        async with world_of(seed) as world:
            return await victim(world, name, seed)

    return simulate(main, seed)


def beside_fuzzers(seed: int) -> tuple[dict[str, Heard], World]:
    """What the victims hear beside each other and the fuzzers."""
    heard: dict[str, Heard] = {}

    async def main() -> World:
        async with world_of(seed) as world, trio.open_nursery() as nursery:
            over = trio.Event()
            for number in range(FUZZERS):
                nursery.start_soon(fuzzer, world, number, seed, over)

            async def speak(name: str) -> None:
                heard[name] = await victim(world, name, seed)
                if len(heard) == VICTIMS:
                    over.set()

            for name in names(seed):
                nursery.start_soon(speak, name)
        return world

    return heard, simulate(main, seed)


def check(seed: int) -> World:
    """Raises AssertionError if any victim noticed anything."""
    heard, world = beside_fuzzers(seed)
    for name in names(seed):
        assert heard[name] == alone(seed, name), f"seed {seed}: {name} noticed its neighbours"
    return world


if __name__ == "__main__":
    first, *rest = map(int, sys.argv[1:])
    for each in range(first, *(rest or [first + 1])):
        print(f"seed {each}", end=": ", flush=True)
        ended = check(each).running.listener.statistics().ended
        print(*(f"{count} {how}," for how, count in sorted(ended.items())))
