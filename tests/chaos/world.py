"""The whole server in one process, on a simulated network and a virtual clock.

    async def main() -> None:
        async with open_world(seed, WS_IDLE_TIMEOUT_S="10") as world:
            async with world.peer("c1") as peer:
                ...

    simulate(main, seed)

It is the server that `app.run` starts: listener, guarded sockets, hypercorn, quart-trio, admission,
connections, engine actor. Only two things are put in its place: the listening socket is the
network's, and the engine is the scripted one. Everything else that could differ between two runs
(task order, ids, wall time) comes from the seed, so that the same seed gives the same trace.

When the block is left, all clients must be gone: the server is asked to be empty again, then to
stop, and each of its promises about that is checked. What is found goes to `violations`, and is
raised as one `ViolationError` at the end, unless another error is on its way.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import attrs
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from tests.chaos.engine import ChaosEngine, Quirks
from tests.chaos.network import MemoryListener, Network
from tests.chaos.peer import Peer
from tests.chaos.seeding import same_every_time
from tests.chaos.toxics import CLEAN, Toxics
from tests.chaos.trace import Trace
from tests.connection import fakes
from tests.engine.scripted import Part, Script, Scripted
from tests.server.wire_client import KEY
from voxtral_actors import limits
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.server import app
from voxtral_actors.server.app import Running
from voxtral_actors.settings import Settings, load

EXPECTED_ERRORS = {"engine.died", "engine.open_failed"}
"""What the server may log as an error: the engine's faults are part of every storm."""
LEFT_S = limits.ENGINE_RELEASE_S + 20.0
"""By then a server has let go of everything that clients held who said that they leave: an engine
that keeps the slot is given up. The rest is for what was queued before."""
SETTLE_S = limits.PEER_SILENCE_S + LEFT_S
"""And this if some did not say so: a dead peer is found first (P4)."""
RESTART_S = 3 * limits.ENGINE_RESTART_MAX_S
LOOK_S = 0.5
"""Between two looks at what must hold at every moment. Virtual, and still not for nothing."""
READINESS_S = 1.0
DEPARTURE_S = limits.LAST_WORDS_S + 1.0
"""From the end of what a client sent to the end of its connection."""
LIFE_S = 3600.0
"""Virtual time for all of a world: what hangs ends as a failure, with the tasks' tracebacks."""
ROOMY = Script(slots=64)

T = TypeVar("T")


class ViolationError(AssertionError):
    """The server broke promises; one line each."""


@attrs.define(eq=False)
class World:
    """One server and all who talk to it."""

    settings: Settings
    network: Network
    engine: ChaosEngine
    actor: EngineActor
    trace: Trace
    logs: list[Any]
    running: Running = attrs.field(init=False)
    violations: list[str] = attrs.field(factory=list)
    stopped_at: float = math.inf
    """When the server was told to stop."""
    returned: trio.Event = attrs.field(factory=trio.Event)
    """The server has stopped by itself."""

    @property
    def scripted(self) -> Scripted:
        return self.engine.scripted

    def complain(self, problem: str) -> None:
        """Note a violation."""
        self.violations.append(f"{trio.current_time():.3f} {problem}")
        self.trace.add("!", problem)

    def require(self, problem: str, *, holds: bool) -> None:
        if not holds:
            self.complain(problem)

    # --- What a storm does -------------------------------------------------------------------

    @asynccontextmanager
    async def peer(
        self, name: str, toxics: Toxics = CLEAN, query: str = f"api_key={KEY}"
    ) -> AsyncIterator[Peer]:
        """A client whose WebSocket is open; it hangs up when the block is left."""
        stream = await self.network.connect(toxics)
        peer = Peer(self, name, stream)
        await peer.raw.upgrade(f"/ws?{query}")
        done = trio.Event()

        async def stay(_: Peer) -> None:
            await done.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run, stay)
            yield peer
            done.set()

    def kill_engine(self) -> None:
        """End the engine's life, if one is ready."""
        if self.engine.down_since() is None:
            self.trace.add("world", "kills the engine")
            self.engine.lives[-1].killed = True
            self.scripted.kill()

    def stop(self) -> None:
        """What a signal does."""
        if self.stopped_at == math.inf:
            self.trace.add("world", "stops the server")
            self.stopped_at = trio.current_time()
            self.running.stop.set()

    # --- What must hold ----------------------------------------------------------------------

    def look(self) -> None:
        """What holds at every moment."""
        service, now = self.running.service, trio.current_time()
        figures, admission = self.actor.statistics(), service.admission
        down = self.engine.down_since()
        if service.drain.started:
            self.require("P16: drains and says otherwise", holds=service.status == "draining")
        elif down is not None and now - down > READINESS_S:
            self.require("P15: ready without an engine", holds=service.status != "ready")
        most = self.settings.max_connections
        self.require("P5: too many connections", holds=0 <= admission.open <= most)
        script = self.scripted.script
        slots = 2 * (script.slots + script.spare)
        self.require("P5: too many slots", holds=0 <= figures.slots_taken <= slots)
        for seat in service.roster.seats():
            if (tree := seat.tree) is not None:
                unserved = tree.unserved(tree.bridge.statistics())
                self.require(f"P5: {unserved} streams without an utterance", holds=not unserved)
        for link in self.network.links:
            gone = link.upward.read_out_at + DEPARTURE_S < now
            left = f"P5: the client of link {link.number} has left, and its socket is kept"
            self.require(left, holds=not gone or link.downward.writer_closed)
        for wires in fakes.WIRINGS:
            outbound = wires.outbound.receive.statistics()
            self.require(
                "P3: more than one step waits for a client that does not read",
                holds=outbound.current_buffer_used <= limits.OUTBOUND_EVENTS
                and outbound.tasks_waiting_send <= 1,
            )

    def holdings(self) -> dict[str, int]:
        """What the server holds for clients; all zero once they are gone."""
        service = self.running.service
        return {
            "connections": service.admission.open,
            "slots": self.actor.statistics().slots_taken,
            "sockets": self.running.listener.statistics().open,
        }

    async def empty(self) -> None:
        """P5: the server lets go of everything that it held for clients who are gone."""
        await wait_all_tasks_blocked()
        dead = any(link.dark_from < math.inf for link in self.network.links)
        with trio.move_on_after(SETTLE_S if dead else LEFT_S):
            while any(self.holdings().values()):  # noqa: ASYNC110 - nobody signals it
                await trio.sleep(1)
        for what, count in self.holdings().items():
            self.require(f"P5: {count} {what} are left of nobody", holds=not count)
        with trio.move_on_after(RESTART_S) as scope:
            await self.actor.wait_ready()
        self.require("P15: the engine does not come back", holds=not scope.cancelled_caught)

    async def end(self) -> None:
        """P16: it stops in time, and leaves nothing behind."""
        self.stop()
        whole = self.settings.drain_timeout_s
        with trio.move_on_at(self.stopped_at + whole):
            await self.returned.wait()
        self.require(f"P16: not stopped after {whole:g} s", holds=self.returned.is_set())
        for entry in self.logs:
            if (
                entry["log_level"] in {"error", "critical"}
                and entry["event"] not in EXPECTED_ERRORS
            ):
                self.complain(f"P1: the server has a bug: {entry}")
        lost = self.engine.lost_lives(self.stopped_at)
        self.require(f"P15: {lost} lives of the engine ended without a cause", holds=not lost)
        failures = self.running.listener.statistics().failures
        self.require(f"P1: {failures} exceptions reached the listener", holds=not failures)


def census(task: trio.lowlevel.Task) -> list[str]:
    """The names of all tasks below this one, those of the engine's life left out."""
    names = []
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            names.append(child.name)
            if not child.name.endswith("EngineActor.run"):
                names += census(child)
    return sorted(names)


@asynccontextmanager
async def open_world(
    seed: object,
    script: Script = ROOMY,
    streams: Callable[[int], Script] | tuple[Script, ...] = (),
    quirks: Callable[[int], Quirks] = lambda _: Quirks(),
    part: Callable[[Script, str], Part] = Part,
    **env: str,
) -> AsyncIterator[World]:
    """A server that accepts connections; `env` are settings by their variable.

    The engine may still be starting, if the script says so.
    """
    settings = load({
        "VOXTRAL_API_KEY": KEY,
        "MAX_CONCURRENT_CONNECTIONS": "64",
        "WS_MAX_MESSAGES_PER_WINDOW": "0",
        "WS_MAX_CANCELS_PER_WINDOW": "0",
        **env,
    })  # fmt: skip
    network, trace = Network(seed), Trace()
    scripted = Scripted(script, streams, part)
    most_waiting = settings.max_audio_backlog_s * limits.SAMPLE_RATE + settings.max_message_bytes

    def complain(problem: str) -> None:
        world.complain(problem)

    engine = ChaosEngine(scripted, quirks, int(most_waiting), settings.replay_budget_s, complain)
    actor = EngineActor(engine.backend)

    async def listeners(_host: str, _port: int) -> list[MemoryListener]:
        await trio.lowlevel.checkpoint()
        return [network.listen()]

    with (
        capture_logs() as logs,
        patch.object(app, "open_listeners", listeners),
        trio.fail_after(LIFE_S),
    ):
        world = World(settings, network, engine, actor, trace, logs)

        async def serve(*, task_status: trio.TaskStatus[Running]) -> None:
            await app.run(settings, engine=actor, task_status=task_status)
            world.returned.set()

        async with trio.open_nursery() as nursery:
            world.running = await nursery.start(serve, name="server")
            (server,) = nursery.child_tasks
            await wait_all_tasks_blocked()
            idle = census(server)

            async def watch() -> None:
                while True:
                    world.look()
                    await trio.sleep(LOOK_S)

            async with trio.open_nursery() as watching:
                watching.start_soon(watch)
                yield world
                if world.stopped_at == math.inf:
                    await world.empty()
                    left = [name for name in census(server) if name not in idle]
                    world.require(f"P5: tasks are left: {left}", holds=census(server) == idle)
                await world.end()
                watching.cancel_scope.cancel(reason="all is over")
            nursery.cancel_scope.cancel(reason="all is over")
    try:
        fakes.assert_all_ends_closed()
    except AssertionError as error:
        world.violations.append(f"P5: an open channel end: {error}")
    if world.violations:
        raise ViolationError("\n".join(world.violations))


def simulate(main: Callable[[], Awaitable[T]], seed: int) -> T:
    """Run `main` in virtual time, the same way every time."""
    fakes.WIRINGS.clear()
    with same_every_time(seed):
        return fakes.simulate(main, seed=seed)
