"""A schedule from a seed: which server, which engine, who comes when, and what befalls them.

`storm(seed)` draws it, `run(seed)` plays it and raises `ViolationError` if a promise was broken.
The kinds of storm take turns, so any range of seeds has all of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import attrs
import trio

from tests.chaos import plans, toxics, visitors
from tests.chaos.engine import Quirks
from tests.chaos.guests import Guest, Storm, guests
from tests.chaos.storms_long import rolls, ruts
from tests.chaos.trace import Trace
from tests.chaos.visitors import Call
from tests.chaos.world import ROOMY, World, open_world, simulate
from tests.engine.scripted import NEVER, Script, random_script

LONGEST_FRAMES = 160
"""Of any utterance that a plan says."""


POLITE = [visitors.client(plan) for plan in (plans.speaker, plans.barger, plans.pinger)]
RUDE = [
    visitors.client(plan)
    for plan in (
        plans.half_spoken, plans.silent, plans.vanisher, plans.babbler, plans.vandal,
        plans.stranger, plans.deaf,
    )
]  # fmt: skip


def calm(rng: random.Random) -> Storm:
    """A healthy engine and good networks: everybody gets every word."""
    others = (plans.canceller, plans.torrent, plans.hasty)
    cast = [*POLITE, *(visitors.client(plan) for plan in others)]
    step_s = rng.choice((0, 0.01, 0.08))
    return Storm(
        kind="calm",
        guests=guests(rng, rng.randint(2, 8), cast, toxics.gentle, 3),
        env={
            "WS_MAX_AUDIO_BACKLOG_S": rng.choice(("1", "4", "30")),
            "WS_MAX_MESSAGES_PER_WINDOW": "40",  # nobody needs more but the hasty
        },
        script=attrs.evolve(ROOMY, step_s=step_s),
        step_s=step_s,
    )


def cancels(rng: random.Random) -> Storm:
    """Everybody speaks, then everybody cancels at the same moment; the engine is slow to let go."""
    at_once = visitors.client(plans.cancels_at_once)
    cast = [at_once, at_once, visitors.client(plans.canceller)]
    quirks = [Quirks(twice=rng.random() < 0.3) for _ in range(9)]
    return Storm(
        kind="cancels",
        guests=guests(rng, rng.randint(4, 14), cast, toxics.gentle, 1),
        script=attrs.evolve(
            ROOMY,
            step_s=rng.choice((0, 0.05)),
            late=rng.random() < 0.5,
            release_after_s=rng.choice((0, 0.1, 3)),
        ),
        quirks=lambda number: quirks[number % len(quirks)],
        go_at_s=rng.uniform(0, 3),
        step_s=0.05,
    )


def barge_ins(rng: random.Random) -> Storm:
    """Everybody talks over themselves, with few engine slots."""
    barger = visitors.client(plans.barger)
    return Storm(
        kind="barge-ins",
        guests=guests(rng, rng.randint(3, 10), [barger, barger, *POLITE], toxics.gentle, 2),
        script=Script(
            slots=rng.choice((2, 4, 64)),
            step_s=rng.choice((0, 0.02)),
            late=rng.random() < 0.5,
            garbage=rng.random() < 0.3,
            release_after_s=rng.choice((0, 0.2, 2)),
        ),
        quirks=lambda _: Quirks(echoes=True),
        step_s=0.02,
    )


def timeouts(rng: random.Random) -> Storm:
    """Idle, duration, write deadline and drain, all at about the same moment."""
    moment = rng.choice((5, 8, 12))
    cast = [
        visitors.client(plan)
        for plan in (
            plans.half_spoken, plans.mumbler, plans.silent, plans.talker, plans.deaf, plans.speaker,
        )
    ]  # fmt: skip
    return Storm(
        kind="timeouts",
        guests=guests(rng, rng.randint(3, 9), cast, toxics.gentle, rng.choice((0, 2))),
        env={
            "WS_IDLE_TIMEOUT_S": f"{moment}",
            "WS_MAX_CONNECTION_DURATION_S": rng.choice((f"{moment}", "0", "20")),
            "WS_WRITE_DEADLINE_S": f"{max(moment - 2, 1)}",
            "WS_CLOSE_GRACE_S": rng.choice(("0", "1", "5")),
            "VOXTRAL_DRAIN_TIMEOUT_S": rng.choice(("10", "30")),
        },
        script=attrs.evolve(ROOMY, step_s=rng.choice((0, 0.08, 0.2))),
        stop_at_s=rng.choice((moment, moment + rng.uniform(-1, 1), NEVER)),
        step_s=0.2,
    )


def connects(rng: random.Random) -> Storm:
    """Connections come and go: cut at any byte, half open, full house, wrong keys, probes."""
    cast = [
        visitors.half_handshake, visitors.passer_by, visitors.prober,
        visitors.client(plans.stranger), visitors.client(plans.vanisher),
        visitors.client(plans.speaker),
    ]  # fmt: skip
    return Storm(
        kind="connects",
        guests=guests(
            rng,
            rng.randint(8, 24),
            cast,
            lambda r: toxics.lossy(r, 3) if r.random() < 0.4 else toxics.gentle(r),
            4,
        ),
        env={"MAX_CONCURRENT_CONNECTIONS": rng.choice(("2", "5", "64"))},
        stop_at_s=rng.choice((NEVER, NEVER, rng.uniform(0, 6))),
    )


def deaths(rng: random.Random) -> Storm:
    """The engine dies, again and again, and takes its time to come back."""
    script = attrs.evolve(
        ROOMY,
        start_s=rng.choice((0, 0.3, 2)),
        fail_start=rng.choice((0, 0, 2)),
        die_at_s=rng.choice((NEVER, NEVER, 7)),
        step_s=rng.choice((0, 0.05)),
    )
    cast = [*POLITE, visitors.client(plans.canceller), visitors.prober]
    return Storm(
        kind="deaths",
        guests=guests(rng, rng.randint(3, 10), cast, toxics.gentle, 8),
        script=script,
        kills_at_s=tuple(rng.uniform(0, 12) for _ in range(rng.randint(1, 4))),
        step_s=0.05,
    )


def mixed(rng: random.Random) -> Storm:
    """Everything at once: any engine, any network, any client."""
    engine = attrs.evolve(random_script(rng), slots=rng.choice((2, 8, 64)))
    choices = [attrs.evolve(random_script(rng), die_after=NEVER) for _ in range(8)]
    if rng.random() < 0.3:
        choices.append(random_script(rng))
    quirks = [Quirks(rng.random() < 0.2, rng.random() < 0.2) for _ in range(8)]
    cast = [
        *POLITE, *POLITE, *RUDE, visitors.client(plans.canceller), visitors.client(plans.torrent),
        visitors.client(plans.talker), visitors.half_handshake, visitors.passer_by, visitors.prober,
    ]  # fmt: skip
    return Storm(
        kind="mixed",
        guests=guests(rng, rng.randint(4, 12), cast, partial(toxics.any_toxics, life_s=10), 6),
        env={
            "MAX_CONCURRENT_CONNECTIONS": rng.choice(("3", "64")),
            "WS_IDLE_TIMEOUT_S": rng.choice(("20", "150")),
            "WS_MAX_CONNECTION_DURATION_S": rng.choice(("0", "0", "15")),
            "WS_MAX_BAD_MESSAGES": rng.choice(("5", "100")),
            "WS_MAX_AUDIO_BACKLOG_S": rng.choice(("1", "3", "30")),
            "WS_WRITE_DEADLINE_S": rng.choice(("2", "10")),
        },
        script=engine,
        streams=lambda number: choices[number % len(choices)],
        quirks=lambda number: quirks[number % len(quirks)],
        go_at_s=rng.uniform(0, 5),
        kills_at_s=tuple(rng.uniform(0, 15) for _ in range(rng.choice((0, 0, 1)))),
        stop_at_s=rng.choice((NEVER, NEVER, rng.uniform(0, 12))),
        step_s=0.2,
    )


Kind: TypeAlias = Callable[[random.Random], Storm]
KINDS: tuple[Kind, ...] = (
    mixed, cancels, barge_ins, timeouts, connects, deaths, calm,
)  # fmt: skip
IN_TURN: dict[Kind, tuple[Kind, ...]] = {calm: (calm, rolls, ruts)}
"""Those that share a place with others: the kind of a seed does not change when there are more."""
PATIENCE_S = 3.0


def storm(seed: int) -> Storm:
    """The schedule of a seed."""
    kind = KINDS[seed % len(KINDS)]
    sharing = IN_TURN.get(kind, (kind,))
    drawn = sharing[seed // len(KINDS) % len(sharing)](random.Random(f"{seed}/storm"))
    env = {"WS_BACKPRESSURE_TIMEOUT_S": f"{PATIENCE_S}", "WS_MAX_MESSAGE_BYTES": "65536"}
    return attrs.evolve(drawn, env={**env, **drawn.env})


async def play(seed: int, traces: list[Trace]) -> None:
    """Play a seed's schedule; its trace is there from the start, whatever becomes of it."""
    it = storm(seed)
    # Each stall in a queue has its patience, each life of the engine its start.
    limit_s = LONGEST_FRAMES * it.step_s + 4 * PATIENCE_S + 60
    world_of = open_world(seed, it.script, it.streams, it.quirks, it.part(), **it.env)
    async with world_of as world:
        traces.append(world.trace)
        world.trace.add("world", f"{it.kind} {it.env} {it.script}")
        go = trio.Event()
        async with trio.open_nursery() as nursery:
            for number, guest in enumerate(it.guests, 1):
                rng = random.Random(f"{seed}/guest/{number}")
                call = Call(
                    world=world, name=f"c{number}", toxics=guest.toxics, rng=rng, go=go,
                    limit_s=limit_s,
                )  # fmt: skip
                nursery.start_soon(_come, guest, call)
            nursery.start_soon(_befall, world, it, go)
        for link in world.network.links:
            for pipe in (link.upward, link.downward):
                world.trace.add(f"link{link.number}", f"{pipe.written} {pipe.read} {pipe.crc:08x}")


async def _come(guest: Guest, call: Call) -> None:
    await trio.sleep(guest.at_s)
    await guest.visit(call)


async def _befall(world: World, it: Storm, go: trio.Event) -> None:
    moments = [(at, world.kill_engine) for at in it.kills_at_s]
    moments += [(it.go_at_s, go.set), (it.stop_at_s, world.stop)]
    for at, happen in sorted(moments, key=lambda moment: moment[0]):
        if at < math.inf:
            await trio.sleep_until(at)
            happen()


def run(seed: int, traces: list[Trace] | None = None) -> Trace:
    """Play one seed. `traces` gets its trace even if it fails.

    Raises:
        ViolationError: a promise was broken; its note is the command that plays it again.
    """
    traces = [] if traces is None else traces
    try:
        simulate(partial(play, seed, traces), seed)
    except BaseException as error:
        error.add_note(f"make chaos SEED={seed}")
        raise
    return traces[0]
