"""A server's service with connections in memory: what `/debug/actors` and the invariants look at.

Everything is real but the socket's bytes: admission, roster, trees, engine actor. Connections are
seated as `quart_app` does it, so thousands of them cost no file descriptor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from tests.connection.client import Client, FakeTransport
from tests.connection.fakes import LIMIT, make_settings
from tests.engine.scripted import HEALTHY, Script, Scripted
from voxtral_actors.connection import supervisor
from voxtral_actors.connection.drain import Drain
from voxtral_actors.connection.figures import UtteranceFigures
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.engine.port import EngineInfo
from voxtral_actors.server.admission import Admission, Credentials
from voxtral_actors.server.invariants import Invariants
from voxtral_actors.server.roster import Seat
from voxtral_actors.server.service import Service
from voxtral_actors.server.wire import Wire, WireOptions

WITH_KEY = Credentials(("key",), None, "")


@attrs.define
class Rig:
    """The service, the checks on it, and the nursery in which connections live."""

    service: Service
    scripted: Scripted
    invariants: Invariants
    nursery: trio.Nursery

    async def connect(self) -> tuple[Client, Seat]:
        """One more connection, named after its number."""
        number = self.service.admission.admitted
        transport = FakeTransport()
        seat: Seat = await self.nursery.start(self._serve, transport, number)
        return transport.client, seat

    async def _serve(
        self, transport: FakeTransport, number: int, *, task_status: trio.TaskStatus[Seat]
    ) -> None:
        service, name = self.service, f"sess-{number}"
        options = WireOptions(write_deadline_s=10, max_message_bytes=1 << 20)
        wire = Wire(
            memory_stream_pair()[0], options, trio.CapacityLimiter(1), peer=("192.0.2.7", number)
        )
        with service.admission.admit(WITH_KEY) as info, service.roster.seat(name, wire) as seat:
            assert isinstance(info, EngineInfo)
            wire.admit()

            def show(tree: Any) -> None:
                seat.show(tree)
                task_status.started(seat)

            arguments = service.engine, info, service.settings, service.drain
            ids: dict[str, Any] = {"session_id": name, "created": 0, "drain_share": 0.0}
            await supervisor.serve(
                transport,
                *arguments,
                **ids,
                figures=UtteranceFigures(),
                ended=lambda _: None,
                show=show,
            )

    async def violated(self) -> dict[str, float]:
        """The invariants that a scrape would show as violated."""
        await wait_all_tasks_blocked()
        await self.invariants.look()
        samples = [sample for family in self.invariants.collect() for sample in family.samples]
        return {
            sample.name.removeprefix("voxtral_invariant_"): sample.value
            for sample in samples
            if sample.value
        }


@asynccontextmanager
async def rig(script: Script = HEALTHY, **changes: Any) -> AsyncIterator[Rig]:
    """A service whose engine is ready; `changes` are settings."""
    scripted = Scripted(script)
    engine, drain = EngineActor(scripted.backend), Drain()
    settings = make_settings(**{"max_connections": 10_000, **changes})
    service = Service(settings, engine, Admission(settings, engine, drain), drain)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run)
            await engine.wait_ready()
            yield Rig(service, scripted, Invariants(service), nursery)
            nursery.cancel_scope.cancel(reason="the test is over")
