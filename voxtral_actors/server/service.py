"""What one server process consists of, for the parts that have to look at all of it."""

from __future__ import annotations

from collections import Counter

import attrs

from voxtral_actors.connection.drain import Drain
from voxtral_actors.connection.figures import UtteranceFigures
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.server.admission import Admission
from voxtral_actors.server.roster import Roster
from voxtral_actors.settings import Settings


@attrs.define
class Service:
    """The objects that every connection shares."""

    settings: Settings
    engine: EngineActor
    admission: Admission
    drain: Drain
    utterances: UtteranceFigures = attrs.field(factory=UtteranceFigures)
    roster: Roster = attrs.field(factory=Roster)
    outcomes: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    """How connections ended: (kind, reason) -> count."""

    @property
    def status(self) -> str:
        """`ready`, `starting` (the engine is not ready) or `draining`."""
        if self.drain.started:
            return "draining"
        return "ready" if self.engine.info is not None else "starting"
