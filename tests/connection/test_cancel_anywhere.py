"""Cancelled at any step of any task, a connection leaves nothing behind.

A representative conversation is run again and again. Each run is cut at another task step: once by
cancelling the whole connection, once by cancelling one actor alone. The schedule is the same every
time, so every step is reached.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import attrs
import pytest
import trio
from trio.abc import Instrument

from tests.connection.fakes import Connection, connected, simulate
from tests.connection.speakers import LIVE, listening
from tests.engine.scripted import Part, Script, speech
from tests.utterance.hearing import audio_of, sentence
from voxtral_actors.connection import drain, duration, idle
from voxtral_actors.connection.bridge import Bridge
from voxtral_actors.connection.limiter import Limiter
from voxtral_actors.connection.reader import Reader
from voxtral_actors.connection.voice import Voice
from voxtral_actors.connection.writer import Writer
from voxtral_actors.limits import LAST_WORDS_S

Talk: TypeAlias = Callable[[Connection], Awaitable[None]]


class CutAt(Instrument):
    """Calls `cut` at the n-th task step after it was armed, whichever task it is."""

    def __init__(self, step: int) -> None:
        self.left = step
        self.cut: Callable[[], object] | None = None
        self.done = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.cut is None or self.done:
            return
        if self.left == 0:
            self.done = True
            self.cut()
        self.left -= 1


async def conversation(connection: Connection) -> None:
    """A tail, a barge-in, a cancel, an error, a full backlog and a slow client, in few steps."""
    client = connection.client
    client.utter("tail", speech(0.4))
    client.start("a")
    client.audio(speech(0.5))
    client.start("b")
    client.audio(speech(3))
    client.frame("bad")
    await trio.sleep(0.5)
    client.stop_reading()
    for _ in range(20):
        client.say("ping")
    client.cancel("b")
    client.utter("c", speech(0.2))
    await trio.sleep(3)
    client.read_again()
    await trio.sleep(1)
    client.say("end")
    await trio.sleep(1)


async def bereavement(connection: Connection) -> None:
    """An engine that dies under a tail and an active utterance, a wait, and a replay of both."""
    client = connection.client
    client.utter("tail", speech(0.4))
    client.start("a")
    client.audio(speech(0.5))
    await trio.sleep(0.3)
    connection.house.scripted.kill()
    await trio.sleep(0.1)
    client.audio(speech(0.2))
    await trio.sleep(1)
    client.finalise("a")
    await trio.sleep(1)


async def rolling(connection: Connection) -> None:
    """Two rolls, the second of an utterance that is finished in the middle of it."""
    connection.client.start("a")
    for at in range(0, len(SPOKEN), len(SPOKEN) // 8):
        connection.client.audio(SPOKEN[at : at + len(SPOKEN) // 8])
        await trio.sleep(1)
    connection.client.finalise("a")
    await trio.sleep(4)


SPEECH = sentence(26, silence=2)
SPOKEN = audio_of(SPEECH)
ENGINES: dict[Talk, tuple[Script, Callable[[Script, str], Part], dict[str, float]]] = {
    rolling: (
        attrs.evolve(LIVE, step_s=0.08, release_after_s=0.05),
        listening(SPEECH),
        {"segment_s": 3.0, "max_audio_backlog_s": 4},
    )
}
"""What a conversation needs that is no other one's."""


async def play(instrument: CutAt, actor: str | None, talk: Talk = conversation) -> None:
    """One run. With `actor` that one's scope is cut, else the connection's."""
    usual = Script(step_s=0.08, release_after_s=0.05), Part, {"max_audio_backlog_s": 1.0}
    script, part, settings = ENGINES.get(talk, usual)
    async with connected(script, part=part, write_deadline_s=9, **settings) as connection:
        connection.may_break = actor is not None
        instrument.cut = SCOPES[actor].cancel if actor else connection.scope.cancel
        with trio.move_on_after(20):
            await talk(connection)
        instrument.cut = instrument.cut if instrument.done else None
        client, transport = connection.client, connection.transport
        client.leave()
        client.read_again()
        if not actor and instrument.done:
            with trio.fail_after(LAST_WORDS_S):
                await connection.ended()
        assert len(transport.closes) <= 1
    assert len(connection.outcomes) == 1


def runs(actor: str | None = None, stride: int = 1, talk: Talk = conversation) -> int:
    """Cut at every step there is, or at every so many; returns how many there are."""
    for step in range(0, 10_000, stride):
        instrument = CutAt(step)
        simulate(partial(play, instrument, actor, talk), instruments=[instrument])
        if not instrument.done:
            return step
    raise AssertionError("the conversation never ends")


SCOPES: dict[str, trio.CancelScope] = {}
ACTORS: dict[str, tuple[Any, str, int]] = {
    # Where it is, and the stride: to keep the suite quick, and primes so that they do not align.
    "reader": (Reader, "run", 17),
    "limiter": (Limiter, "run", 17),
    "bridge": (Bridge, "run", 17),
    "downlink": (Voice, "_downlink", 17),
    "writer": (Writer, "run", 17),
    "idle": (idle, "run", 53),
    "duration": (duration, "run", 53),
    "drain": (drain, "run", 53),
}


def scoped(name: str, run: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The actor in a scope of its own; of several downlinks the last one's."""

    async def wrapped(*args: Any) -> None:
        with trio.CancelScope() as SCOPES[name]:
            await run(*args)

    return wrapped


def test_p5_the_connection_is_cancelled_at_any_step() -> None:
    assert runs() > 250


@pytest.mark.parametrize("actor", [None, "reopen"])
def test_p5_the_loss_of_an_engine_is_cut_at_any_step(
    actor: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    SCOPES["reopen"] = trio.CancelScope()
    monkeypatch.setattr(Voice, "_reopen", scoped("reopen", Voice._reopen))
    assert runs(actor, talk=bereavement) > 80


def test_p5_p13_an_utterance_that_rolls_is_cut_at_any_step() -> None:
    assert runs(talk=rolling) > 300


@pytest.mark.parametrize("actor", ACTORS)
def test_p5_one_actor_is_cancelled_at_any_step(actor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it had ended. The tree ends or goes on without it; nothing is left in the end."""
    place, name, stride = ACTORS[actor]
    SCOPES[actor] = trio.CancelScope()
    monkeypatch.setattr(place, name, scoped(actor, getattr(place, name)))
    assert runs(actor, stride) > 250
