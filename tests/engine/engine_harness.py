"""What the tests of the engine actor share: a running actor, and an ear for its streams."""

from __future__ import annotations

import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from tests.engine.sphinx_harness import children
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.engine.loopthread import THREAD_NAME
from voxtral_actors.engine.port import (
    Backend,
    EngineStream,
    Failed,
    Finished,
    StreamSpec,
    Text,
)

SPEC = StreamSpec("test")


@attrs.define
class Heard:
    """All that one stream said; `last` is None if it was aborted."""

    texts: list[str] = attrs.field(factory=list)
    positions: list[int] = attrs.field(factory=list)
    last: Finished | Failed | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)


async def hear(stream: EngineStream) -> Heard:
    """Listen to the end. Positions never go back, and nothing comes after the last event."""
    heard = Heard()
    while True:
        try:
            event = await stream.receive()
        except trio.EndOfChannel:
            break
        assert heard.last is None, f"{event} came after {heard.last}"
        if isinstance(event, Finished | Failed):
            heard.last = event
            continue
        assert not heard.positions or event.consumed >= heard.positions[-1]
        heard.positions.append(event.consumed)
        if isinstance(event, Text):
            assert event.text
            heard.texts.append(event.text)
    return heard


def feed_in_pieces(stream: EngineStream, pcm: bytes, seed: int | None = None) -> None:
    """Feed all of it: in pieces of 80 ms, or with a seed in odd ones, the empty one among them."""
    rng = random.Random(seed)
    while pcm:
        size = 2560 if seed is None else 2 * rng.choice((0, 1, 7, 500, 1279, 1281, 4001))
        stream.feed(pcm[:size])
        pcm = pcm[size:]


async def say(actor: EngineActor, pcm: bytes, seed: int | None = None) -> Heard:
    """One utterance from open to end."""
    stream = actor.open(SPEC)
    feed_in_pieces(stream, pcm, seed)
    stream.finish()
    return await hear(stream)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what nobody signals; the caller has a limit."""
    while not holds():  # noqa: ASYNC110
        await trio.sleep(0.001)


def engine_threads() -> int:
    """How many loop threads are at work."""
    return sum(thread.name == THREAD_NAME for thread in threading.enumerate())


@asynccontextmanager
async def running(make_backend: Callable[[], Backend]) -> AsyncIterator[EngineActor]:
    """An actor that is ready; at the end it is cancelled and must leave nothing behind."""
    processes, threads = children(), engine_threads()
    actor = EngineActor(make_backend)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        await actor.wait_ready()
        yield actor
        nursery.cancel_scope.cancel()
    assert not actor.statistics().ready
    assert actor.statistics().slots_taken == 0
    assert children() <= processes
    assert engine_threads() == threads
