"""What two clients do while something is cut inside the server, and what each of them heard.

Both follow the same scenario, in one simulated world; the first is the victim of the cut
(`cutting.py`), the other must not notice. A scenario waits for each of its utterances, but not for
ever: the victim's may never end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final
from unittest.mock import patch

import attrs
import trio

from tests.chaos import world as worlds
from tests.chaos.cutting import Cut
from tests.chaos.peer import Peer
from tests.chaos.seeding import same_every_time
from tests.chaos.story import is_terminal
from tests.chaos.world import ViolationError, World, open_world
from tests.connection import fakes
from tests.engine.scripted import Script, speech
from tests.server.wire_client import KEY
from voxtral_actors.protocol.events import CONNECTION_REQUEST_ID, Event

SEED: Final = 1
PATIENCE_S: Final = 10.0
"""For the end of an utterance; virtual, and longer than all that the server waits for."""
DRAIN_S: Final = 15.0
OURS: Final = {"connection.bug", "wire.failed"}
"""What the server logs of a task that fails."""


async def one_utterance(_: World, peer: Peer) -> None:
    peer.client.utter("1", speech(0.3))
    await settled(peer, "1")
    await goodbye(peer)


async def barge_in(_: World, peer: Peer) -> None:
    peer.client.start("1")
    peer.client.audio(speech(0.2))
    await trio.sleep(0.1)
    peer.client.utter("2", speech(0.2))
    await settled(peer, "1", "2")
    await goodbye(peer)


async def tail_and_active(_: World, peer: Peer) -> None:
    peer.client.utter("1", speech(0.2))
    peer.client.start("2")
    peer.client.audio(speech(0.2))
    await settled(peer, "1")
    peer.client.finalise("2")
    await settled(peer, "2")
    await goodbye(peer)


async def drain(world: World, peer: Peer) -> None:
    peer.client.start("1")
    peer.client.audio(speech(0.2))
    await trio.sleep(0.1)
    world.stop()
    peer.client.finalise("1")
    await settled(peer, "1")
    await trio.sleep(DRAIN_S)


async def engine_death(world: World, peer: Peer) -> None:
    peer.client.start("1")
    peer.client.audio(speech(0.2))
    await trio.sleep(0.1)
    world.kill_engine()
    await settled(peer, "1")
    await trio.sleep(1)
    peer.client.utter("2", speech(0.1))
    await settled(peer, "2")
    await goodbye(peer)


async def settled(peer: Peer, *names: str) -> None:
    with trio.move_on_after(PATIENCE_S):
        while not all(ends(peer, name) for name in names):
            await peer.news()


async def goodbye(peer: Peer) -> None:
    """Say `end`; who is still connected after a while hangs up."""
    peer.client.say("end", "bye")
    await trio.sleep(PATIENCE_S)


def ends(peer: Peer, name: str) -> list[Event]:
    return [e for e in peer.client.heard if e.request_id == name and is_terminal(e)]


Scenario = Callable[[World, Peer], Awaitable[None]]
SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.__name__: scenario
    for scenario in (one_utterance, barge_in, tail_and_active, drain, engine_death)
}


@attrs.frozen
class Heard:
    """What became of one client."""

    ending: str | None
    """`closed`, `eof`, `reset`, `left` (still connected when it had nothing more to say), or
    `turned away` before its WebSocket was open."""
    close: tuple[int, str] | None
    terminals: tuple[tuple[str, str], ...]
    """Of its utterances: request id and kind of event."""
    last: str
    """The last event."""

    @property
    def utterances(self) -> list[str]:
        """Those that have ended; an id that comes twice ended twice."""
        return sorted(name for name, _ in self.terminals)


@attrs.frozen
class Result:
    """One run."""

    victim: Heard
    bystander: Heard
    admitted: int
    outcomes: int
    """Connections whose end was reported; as many as were admitted."""
    failures: int
    """What the listener had to contain."""
    violations: tuple[str, ...]


def play(scenario: str, cut: Cut) -> Result:
    """One run.

    Raises:
        BaseException: whatever is no plain violation: a judge that raised, a hang.
    """
    results: list[Result] = []
    violations: list[str] = []
    run = partial(_run, SCENARIOS[scenario], cut, results)
    expected = worlds.EXPECTED_ERRORS | (OURS if cut.step >= 0 else set())
    fakes.WIRINGS.clear()
    with patch.object(worlds, "EXPECTED_ERRORS", expected), same_every_time(SEED):
        try:
            fakes.simulate(run, seed=SEED, instruments=[cut])
        except ViolationError as error:
            violations = str(error).splitlines()
    return attrs.evolve(results[0], violations=tuple(violations))


async def _run(scenario: Scenario, cut: Cut, results: list[Result]) -> None:
    script = Script(slots=8, step_s=0.08)
    async with open_world(SEED, script, VOXTRAL_DRAIN_TIMEOUT_S=f"{DRAIN_S}") as world:
        cut.arm()
        peers = [Peer(world, name, await world.network.connect()) for name in ("victim", "other")]
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(_visit, world, peer, scenario)
        cut.disarm()
        running = world.running
        results.append(
            Result(
                victim=_heard(peers[0]),
                bystander=_heard(peers[1]),
                admitted=running.service.admission.admitted,
                outcomes=sum(running.service.outcomes.values()),
                failures=running.listener.statistics().failures,
                violations=(),
            )
        )


async def _visit(world: World, peer: Peer, scenario: Scenario) -> None:
    try:
        await peer.raw.upgrade(f"/ws?api_key={KEY}")
    except (EOFError, trio.BrokenResourceError):
        peer.turned_away()
        peer.stream.abandon()
    else:
        await peer.run(partial(scenario, world))


def _heard(peer: Peer) -> Heard:
    heard = peer.client.heard
    of_utterances = [e for e in heard if is_terminal(e) and e.request_id != CONNECTION_REQUEST_ID]
    terminals = tuple((e.request_id, type(e).__name__) for e in of_utterances)
    last = type(heard[-1]).__name__ if heard else ""
    return Heard(peer.ending, peer.client.closed, terminals, last)
