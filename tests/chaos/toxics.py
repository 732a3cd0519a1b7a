"""What can be wrong with one connection of the simulated network, and how a seed chooses it.

Toxics act on both directions of a connection and are fixed before it is opened. Whatever is drawn
from a `Toxics` while bytes move comes from the connection's own random numbers (`network.py`), so
what happens on one connection does not depend on how busy the others are.
"""

from __future__ import annotations

import math
import random
from typing import Final

import attrs

NEVER: Final = math.inf


@attrs.frozen(kw_only=True)
class Toxics:
    """Times are seconds; `…_s` that name a moment count from when the connection was opened."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    """Up to so much more latency, drawn for each piece; pieces stay in order."""
    bandwidth: float = math.inf
    """Bytes a second."""
    cuts: int = 0
    """Each write is cut at up to so many places, at any byte, and a read returns one piece. With 0
    a read returns all that has arrived."""
    buffer_bytes: int = 65_536
    """Room between writer and reader, one direction: who writes more waits."""
    black_hole_s: float = NEVER
    """From then on nothing arrives any more, and nobody is told."""
    reset_s: float = NEVER
    """Both ends find the connection reset."""
    limit_bytes: float = NEVER
    """The connection is reset behind this byte that the client sent."""
    slow_close_s: float = 0.0
    """The end of a direction arrives so much later than the last byte."""

    @property
    def loses(self) -> bool:
        """Whether what was sent may never arrive."""
        return min(self.black_hole_s, self.reset_s, self.limit_bytes) < NEVER

    @property
    def delay_s(self) -> float:
        """How late a byte may arrive that was written into a full buffer."""
        return self.latency_s + self.jitter_s + self.buffer_bytes / self.bandwidth

    def transfer_s(self, size: int) -> float:
        """How long so many bytes take at most to a peer that reads: a small buffer on a long way
        is a slow line whatever its bandwidth, for it is refilled once a trip, by half at least."""
        trips = math.ceil(size / (self.buffer_bytes // 2))
        return trips * (self.latency_s + self.jitter_s) + size / self.bandwidth


CLEAN: Final = Toxics()


def gentle(rng: random.Random) -> Toxics:
    """A network on which everything arrives within half a second."""
    return Toxics(
        latency_s=rng.choice((0, 0.001, 0.02, 0.1)),
        jitter_s=rng.choice((0, 0, 0.01, 0.1)),
        bandwidth=rng.choice((math.inf, math.inf, 1e6, 250_000)),
        cuts=rng.choice((0, 0, 1, 3)),
        buffer_bytes=rng.choice((65_536, 65_536, 16_384, 4096)),
        slow_close_s=rng.choice((0, 0, 0.3)),
    )


def slow(rng: random.Random) -> Toxics:
    """A network on which everything arrives, though late: telephones, trains."""
    return attrs.evolve(
        gentle(rng),
        latency_s=rng.uniform(0.1, 1),
        jitter_s=rng.choice((0, 0.5)),
        bandwidth=rng.choice((64_000, 20_000)),
        slow_close_s=rng.choice((0, 3)),
    )


def lossy(rng: random.Random, life_s: float) -> Toxics:
    """A network that ends the connection in one of three ways, within `life_s` or so."""
    toxics = gentle(rng)
    match rng.randrange(4):
        case 0:
            return attrs.evolve(toxics, black_hole_s=rng.uniform(0, life_s))
        case 1:
            return attrs.evolve(toxics, reset_s=rng.uniform(0, life_s))
        case 2:  # inside the handshake, most of the time
            return attrs.evolve(toxics, limit_bytes=rng.randrange(400))
        case _:
            return attrs.evolve(toxics, limit_bytes=rng.randrange(200, 60_000))


def any_toxics(rng: random.Random, life_s: float) -> Toxics:
    """Most connections are good, as they are in the world."""
    kind = rng.random()
    if kind < 0.3:
        return CLEAN
    if kind < 0.7:
        return gentle(rng)
    if kind < 0.8:
        return slow(rng)
    return lossy(rng, life_s)
