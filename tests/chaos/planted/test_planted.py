"""Planted bugs: what the storms are worth. Each of these must be found, and for what it is.

A suite that has never seen a bug may be blind. So the server gets one bug at a time, and the storms
must find it: at its quick seed (`SEEDS`), else at any of the first `RANGE`. The same storms find
nothing in a server without the bugs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from tests.chaos.planted.bugs_connection import CONNECTION_BUGS
from tests.chaos.planted.bugs_server import SERVER_BUGS
from tests.chaos.planted.planting import Bug, planted
from tests.chaos.planted.seeds import RANGE, SEEDS
from tests.chaos.sweep import play

BUGS = (*CONNECTION_BUGS, *SERVER_BUGS)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A broken server logs tracebacks by the hundred."""
    with capture_logs():
        yield


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "_"))
def test_p21_a_planted_bug_is_found(bug: Bug) -> None:
    quick = SEEDS.get(bug.name, 0)
    with planted(bug):
        for tried, seed in enumerate((quick, *RANGE), 1):
            if bug.finding in (problem := play(seed) or ""):
                line = next(line for line in problem.splitlines() if bug.finding in line)
                print(f"{bug.sentence} Found by storm {seed}, number {tried}: {line:.200}")
                return
    raise AssertionError(f"{bug.sentence} No storm of {RANGE} finds that.")


def test_p21_without_a_bug_the_same_storms_find_nothing() -> None:
    assert [play(seed) for seed in sorted({*SEEDS.values()})] == [None] * len({*SEEDS.values()})


def test_every_planted_bug_has_a_name_of_its_own() -> None:
    names = {bug.name for bug in BUGS}
    assert len(names) == len(BUGS) >= 15
    assert SEEDS.keys() == names
