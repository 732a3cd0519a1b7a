"""What one server process consists of, for the parts that have to look at all of it."""

from __future__ import annotations

from collections import Counter

import attrs
import trio

from voxtral_actors.connection.drain import Drain
from voxtral_actors.connection.supervisor import Outcome
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.server.admission import Admission
from voxtral_actors.settings import Settings


@attrs.define
class Service:
    """The objects that every connection shares."""

    settings: Settings
    engine: EngineActor
    admission: Admission
    drain: Drain = attrs.field(factory=Drain)
    outcomes: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    """How connections ended: (kind, reason) -> count."""
    _idle: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def status(self) -> str:
        """`ready`, `starting` (the engine is not ready) or `draining`."""
        if self.drain.started:
            return "draining"
        return "ready" if self.engine.info is not None else "starting"

    def start_drain(self, deadline: float) -> None:
        """Refuse what is new, let what runs finish until `deadline` on trio's clock."""
        self.admission.draining = True
        self.drain.start(deadline)

    def ended(self, outcome: Outcome) -> None:
        """A connection has given its token back."""
        self.outcomes[outcome.kind.value, outcome.reason] += 1
        if not self.admission.open:
            self._idle.unpark_all()

    async def no_connections(self) -> None:
        """Wait until no admitted connection is open."""
        while self.admission.open:
            await self._idle.park()
