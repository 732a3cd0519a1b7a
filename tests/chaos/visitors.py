"""Who opens a connection and what comes of it: clients with a plan, and who never gets in."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeAlias

import attrs
import trio

from tests.chaos import judge
from tests.chaos.network import MemoryStream
from tests.chaos.peer import Peer
from tests.chaos.plans import SLACK_S, Plan, stranger
from tests.chaos.story import Story
from tests.chaos.toxics import Toxics
from tests.chaos.world import World
from tests.server.wire_client import KEY
from tests.server.wire_helpers import Raw, upgrade_request
from voxtral_actors import limits

LIFE_S = 600.0
"""No plan takes as long, whatever the server does."""


@attrs.frozen(kw_only=True)
class Call:
    """What a visitor is told."""

    world: World
    name: str
    toxics: Toxics
    rng: random.Random
    go: trio.Event
    limit_s: float


Visit: TypeAlias = Callable[[Call], Awaitable[None]]


async def _connect(call: Call) -> MemoryStream | None:
    call.world.trace.add(call.name, f"connects {call.toxics}")
    try:
        return await call.world.network.connect(call.toxics)
    except ConnectionRefusedError:
        stopped = call.world.stopped_at <= trio.current_time()
        call.world.require(f"{call.name}: nobody listens", holds=stopped)
        return None


def client(plan: Plan) -> Visit:
    """A WebSocket client that follows a plan."""
    return partial(_visit, plan)


async def _visit(plan: Plan, call: Call) -> None:
    world = call.world
    stream = await _connect(call)
    if stream is None:
        return
    peer = Peer(world, call.name, stream)
    story = Story(call.name, call.rng, call.toxics, peer, call.limit_s, call.go)
    story.wrong_key = plan is stranger
    with trio.move_on_after(LIFE_S) as life:
        if await _upgrade(call, peer, "wrong" if story.wrong_key else KEY):
            await peer.run(lambda _: plan(story))
    world.require(f"{call.name}: its plan hangs", holds=not life.cancelled_caught)
    stream.abandon()
    judge.client(world, story)


async def _upgrade(call: Call, peer: Peer, key: str) -> bool:
    with trio.move_on_after(limits.HANDSHAKE_S + SLACK_S + 4 * call.toxics.delay_s) as shake:
        try:
            head = await peer.raw.upgrade(f"/ws?api_key={key}")
        except (EOFError, trio.BrokenResourceError):
            peer.turned_away()
            return False
    if shake.cancelled_caught:
        call.world.require(f"{call.name}: no answer to the handshake", holds=call.toxics.loses)
        peer.turned_away()
        return False
    accepted = head.startswith(b"HTTP/1.1 101 ")
    call.world.require(f"{call.name}: {head!r:.80}", holds=accepted)
    return accepted


async def half_handshake(call: Call) -> None:
    """Sends a part of a request, then nothing, or hangs up (P6)."""
    stream = await _connect(call)
    if stream is None:
        return
    request = upgrade_request(f"/ws?api_key={KEY}")
    raw = Raw(stream)
    with suppress(trio.BrokenResourceError):
        await raw.send(request[: call.rng.randrange(len(request))])
    await trio.sleep(call.rng.choice((0, 0.01, 1)))
    if call.rng.random() < 0.5:
        stream.reset()
        return
    with trio.move_on_after(limits.HANDSHAKE_S + SLACK_S + 4 * call.toxics.delay_s) as shake:
        await raw.gone()
    stays = shake.cancelled_caught and not call.toxics.loses
    call.world.require(f"P6 {call.name}: half a handshake stays", holds=not stays)
    stream.abandon()


async def passer_by(call: Call) -> None:
    """Connects and goes, with or without a word of nonsense."""
    stream = await _connect(call)
    if stream is None:
        return
    try:
        if call.rng.random() < 0.5:
            await stream.send_all(call.rng.randbytes(call.rng.randint(1, 2000)))
        await trio.sleep(call.rng.choice((0, 0, 0.1)))
    except trio.BrokenResourceError:
        pass
    if call.rng.random() < 0.5:
        stream.reset()
    stream.abandon()


async def prober(call: Call) -> None:
    """What an orchestrator asks: is it alive, is it ready (P15)."""
    for _ in range(call.rng.randint(1, 6)):
        path = call.rng.choice(("/healthz", "/readyz", "/readyz", "/metrics"))
        asked_at = trio.current_time()
        stream = await _connect(call)
        if stream is None:
            return
        answer = await _ask(call, stream, path)
        stream.abandon()
        if answer is not None:
            judge.probe(call.world, path, answer, asked_at)
        await trio.sleep(call.rng.uniform(0, 4))


async def _ask(call: Call, stream: MemoryStream, path: str) -> bytes | None:
    raw = Raw(stream)
    with trio.move_on_after(limits.HANDSHAKE_S + SLACK_S + 4 * call.toxics.delay_s):
        try:
            await raw.send(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            return await raw.rest()
        except trio.BrokenResourceError:
            pass
    world = call.world
    fine = call.toxics.loses or world.stopped_at <= trio.current_time()
    world.require(f"{call.name}: no answer to {path}", holds=fine)
    return None
