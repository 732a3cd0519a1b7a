"""A connection in memory: the real actors, a played client, and the scripted engine.

    async with connected(Script(step_s=0.08), idle_timeout_s=10) as connection:
        connection.client.start("a")

When the block is left, the client hangs up if it has not before, the connection must end, and after
that there must be nothing left of it: no task, no open channel end, no engine slot, and `ended` was
called once. `house` is the same for several connections on one engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import attrs
import trio
import trio._core._run
from trio.abc import Clock, Instrument
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.connection.client import Client, FakeTransport
from tests.engine.scripted import HEALTHY, Part, Script, Scripted
from voxtral_actors.connection import supervisor
from voxtral_actors.connection.drain import Drain
from voxtral_actors.connection.figures import UtteranceFigures
from voxtral_actors.connection.supervisor import Kind, Outcome
from voxtral_actors.connection.wiring import Wiring, open_wiring
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.engine.port import Engine, EngineInfo
from voxtral_actors.limits import ENGINE_RELEASE_S, ENGINE_RESTART_MAX_S
from voxtral_actors.secret import Secret
from voxtral_actors.settings import Settings

SERVER_ID = "sess-test"
LIMIT = 10 * 86_400.0
"""Virtual seconds that a test may take: a hang ends at once and with a traceback."""

WIRINGS: list[Wiring] = []
"""Every wiring that was not looked at yet; `conftest.py` sees to it that they come here."""

T = TypeVar("T")


def recorded_wiring() -> Wiring:
    """What `supervisor` gets for `open_wiring`: the same, remembered."""
    WIRINGS.append(open_wiring())
    return WIRINGS[-1]


def assert_all_ends_closed() -> None:
    for wires in WIRINGS:
        for name, queue in attrs.asdict(wires, recurse=False).items():
            figures = queue.send.statistics()
            assert not figures.open_send_channels, name
            assert not figures.open_receive_channels, name
    WIRINGS.clear()


def make_settings(**changes: Any) -> Settings:
    return Settings(
        **{"api_keys": (Secret("key"),), "max_connections": 9, "engine": "scripted", **changes}
    )


@attrs.define
class Connection:
    """One connection: the client's end, how it ended, and a scope around the whole of it."""

    client: Client
    transport: FakeTransport
    house: House
    outcomes: list[Outcome] = attrs.field(factory=list)
    drain_share: float = 0.0
    """When its turn is in a drain; 0 is at once."""
    may_break: bool = False
    """The test breaks an actor, so the connection may end in a bug."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _over: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self, engine: Engine, info: EngineInfo, settings: Settings, d: Drain) -> None:
        with self.scope:
            try:
                await supervisor.serve(
                    self.transport, engine, info, settings, d,
                    session_id=SERVER_ID, created=1_700_000_000, drain_share=self.drain_share,
                    figures=self.house.figures, ended=self.outcomes.append,
                )  # fmt: skip
            finally:
                self._over.set()

    async def ended(self) -> Outcome:
        """Wait for the end."""
        await self._over.wait()
        (outcome,) = self.outcomes
        return outcome


@attrs.define
class House:
    """An engine and the connections on it."""

    engine: EngineActor
    scripted: Scripted
    drain: Drain
    nursery: trio.Nursery
    figures: UtteranceFigures = attrs.field(factory=UtteranceFigures)

    @property
    def streams(self) -> list[Part]:
        return self.scripted.streams

    @asynccontextmanager
    async def connect(
        self, *, drain_share: float = 0.0, **changes: Any
    ) -> AsyncIterator[Connection]:
        info = await self.engine.wait_ready()
        transport = FakeTransport()
        connection = Connection(transport.client, transport, self, drain_share=drain_share)
        settings = make_settings(**changes)
        arguments = self.engine, info, settings, self.drain
        self.nursery.start_soon(connection.serve, *arguments)  # noqa: ASYNC113 - a test waits
        yield connection
        connection.client.leave()
        connection.client.read_again()
        await wait_all_tasks_blocked()
        if transport.unread:  # reading is paused, so only the listener can tell
            connection.scope.cancel(reason="the socket is gone")
        outcome = await connection.ended()
        assert connection.may_break or outcome.kind is not Kind.BUG

    async def assert_nothing_left(self) -> None:
        """Nothing but the engine is there once it had its time to let go."""
        for _ in range(3):
            await wait_all_tasks_blocked()
            if not self.engine.statistics().slots_taken:
                break
            await trio.sleep(ENGINE_RELEASE_S + ENGINE_RESTART_MAX_S)
        assert not self.engine.statistics().slots_taken
        assert all(task.name.endswith("EngineActor.run") for task in self.nursery.child_tasks)
        assert_all_ends_closed()


@asynccontextmanager
async def house(
    script: Script = HEALTHY, streams: Any = (), part: Any = Part
) -> AsyncIterator[House]:
    """A running engine; see `Scripted` for the arguments."""
    scripted = Scripted(script, streams, part)
    engine = EngineActor(scripted.backend)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run)
            await engine.wait_ready()
            here = House(engine, scripted, Drain(), nursery)
            yield here
            await here.assert_nothing_left()
            nursery.cancel_scope.cancel(reason="the test is over")


@asynccontextmanager
async def connected(
    script: Script = HEALTHY, streams: Any = (), part: Any = Part, **changes: Any
) -> AsyncIterator[Connection]:
    """One connection in a house of its own; `changes` are settings."""
    async with house(script, streams, part) as here, here.connect(**changes) as connection:
        yield connection


def simulate(
    main: Callable[[], Awaitable[T]],
    clock: Clock | None = None,
    instruments: Sequence[Instrument] = (),
    seed: int = 0,
) -> T:
    """Run in virtual time; the seed draws the order of tasks that are ready together.

    `conftest.py` gives it to pytest as the runner of every asynchronous test in this folder.
    """
    trio._core._run._r.seed(seed)
    clock = clock or MockClock(autojump_threshold=0)
    return trio.run(main, clock=clock, instruments=instruments)
