"""P1: no sequence of bytes from one client changes any other connection.

A hundred victims, five to a seed, hear the same beside fuzzers as alone: the same messages, octet
by octet, at the same moments of the virtual clock. A seed that fails is played again by
`python -m tests.chaos.neighbours SEED`.
"""

from __future__ import annotations

import pytest

from tests.chaos.neighbours import FUZZERS, VICTIMS, check


@pytest.mark.parametrize("seed", range(20))
def test_p1_victims_hear_the_same_beside_fuzzers_as_alone(seed: int) -> None:
    world = check(seed)
    assert len(world.network.links) > VICTIMS + FUZZERS  # the fuzzers came more than once
