"""What a storm is: who comes when, through which network, to which server and which engine."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import attrs

from tests.chaos.engine import Quirks
from tests.chaos.toxics import CLEAN, Toxics
from tests.chaos.visitors import Visit
from tests.chaos.world import ROOMY
from tests.engine.scripted import NEVER, Part, Script


@attrs.frozen
class Guest:
    """One visitor: when it comes, what it does, through which network."""

    at_s: float
    visit: Visit
    toxics: Toxics = CLEAN


@attrs.frozen(kw_only=True)
class Storm:
    """One schedule."""

    kind: str
    guests: Sequence[Guest]
    env: dict[str, str] = attrs.field(factory=dict)
    script: Script = ROOMY
    streams: Callable[[int], Script] | tuple[Script, ...] = ()
    quirks: Callable[[int], Quirks] = lambda _: Quirks()
    part: Callable[[], Callable[[Script, str], Part]] = lambda: Part
    """What hears the streams: made anew each time that the storm is played."""
    go_at_s: float = 1.0
    """When those act who act all at once."""
    kills_at_s: tuple[float, ...] = ()
    """When the engine is killed."""
    stop_at_s: float = NEVER
    """When the server is stopped; else after everybody has left."""
    step_s: float = 0.0
    """The longest that any stream needs for a frame."""


def guests(
    rng: random.Random,
    count: int,
    cast: Sequence[Visit],
    network: Callable[[random.Random], Toxics],
    within_s: float,
) -> list[Guest]:
    return [
        Guest(rng.choice((0, rng.uniform(0, within_s))), rng.choice(cast), network(rng))
        for _ in range(count)
    ]
