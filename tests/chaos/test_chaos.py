"""Storms: the whole server against seeded faults, in virtual time. `make chaos` runs thousands.

A failing storm names the command that plays it again, with its trace.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos import storms

ROOT = Path(__file__).parents[2]

FIXED = range(28)
"""The same in every run: each kind of storm a few times."""
FRESH = 14
"""New ones in every run; their seeds are printed when one fails."""


@pytest.mark.parametrize("kind", range(len(storms.KINDS)), ids=lambda n: storms.KINDS[n].__name__)
def test_p11_p5_storms(kind: int) -> None:
    for seed in FIXED:
        if seed % len(storms.KINDS) == kind:
            storms.run(seed)


def test_p11_p5_fresh_storms() -> None:
    first = random.SystemRandom().randrange(10**9)
    print(f"make chaos SEED={first} and the {FRESH - 1} after it")
    for seed in range(first, first + FRESH):
        storms.run(seed)


REPEATED = (0, 1, 4, 5, 13)


@pytest.mark.parametrize("seed", REPEATED)
def test_p21_the_same_seed_gives_the_same_trace(seed: int) -> None:
    first = storms.run(seed)
    assert len(first.lines) > 10
    assert storms.run(seed).lines == first.lines


def test_p21_another_process_gives_the_same_traces() -> None:
    digests = {seed: storms.run(seed).digest() for seed in REPEATED}
    code = (
        f"from tests.chaos import storms; print({{s: storms.run(s).digest() for s in {REPEATED}}})"
    )
    for hash_seed in ("1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert done.stdout.strip() == str(digests), f"PYTHONHASHSEED={hash_seed}"


def test_different_seeds_give_different_traces() -> None:
    assert len({storms.run(seed).digest() for seed in range(7)}) == 7
