"""Whatever task of a connection ends or fails, at whatever step: the server leaves nothing behind.

A few scenarios run again and again, each time with another cut (`cutting.py`): each task of the
victim's alone, the web stack's too, is cancelled or made to fail, and the whole connection is
cancelled. After each run the world has seen to it that no channel end, task, slot, token or socket
is left; here the client's side is judged: the Close, the ends of its utterances, and that the other
client heard what it hears when nothing is cut.

`make test` takes every so many steps, `pytest -m chaos` every one; both print what they did.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.cut_scenarios import SCENARIOS, Heard, Result, play
from tests.chaos.cutting import CONNECTION, Cut

STRIDE = 41
"""A prime, and each task begins elsewhere: so that all scenarios are cut all over."""

OURS = (
    "reader",
    "limiter",
    "bridge",
    "_downlink",
    "_reopen",
    "writer",
    "idle",
    "duration",
    "drain",
)
AFTER_A_LOSS = ("_reopen",)
"""Those that are there only after an engine is lost."""
STACK = ("_run_app", "handle_websocket", "handle_messages", "_watch_silence")

UNNOTICED = "as if nothing had been cut"
BUG = "the error and the Close of a bug"
ENDED = "the usual Close, every utterance with one end, if perhaps another one"
UNREAD = "the usual Close; utterances that nobody read of any more have no end"
ABANDONED = "no Close: as if the client had left, or the server were stopped at once"
CONTAINED = "no Close or 1011, and the listener counts a failure"

CANCELLED = {
    "reader": {ABANDONED, UNREAD},
    "limiter": {BUG, ABANDONED, UNREAD},
    "bridge": {BUG, ABANDONED},
    "_downlink": {ENDED},
    "_reopen": {ENDED, UNREAD},
    "writer": {ABANDONED},
    "_run_app": {ABANDONED},
    "handle_websocket": {ABANDONED},
    CONNECTION: {ABANDONED},
}
"""What may come of a task that is cancelled alone; nothing, of those that are not here. What waited
in the channel of one that is gone is never read: it may have been the client's `end`."""

IN_A_DRAIN = {"drain": {ABANDONED}, "bridge": {ENDED, UNREAD}}
"""And this while the server stops: its deadline cuts who was not told."""


def ways(actor: str, scenario: str, *, raises: bool) -> set[str]:
    """What may come of a cut. One that comes too late changes nothing."""
    if raises:
        return {UNNOTICED, BUG if actor in OURS else CONTAINED}
    drained = IN_A_DRAIN.get(actor, set()) if scenario == "drain" else set()
    return {UNNOTICED} | CANCELLED.get(actor, set()) | drained


def came(result: Result, uncut: Heard) -> str:
    """What came of a cut."""
    victim = result.victim
    if result.failures:
        assert victim.close in (None, uncut.close, (1011, ""))
        return CONTAINED
    if victim == uncut:
        return UNNOTICED
    if victim.close is None:
        return ABANDONED
    if victim.close == (1011, "internal_error"):
        assert victim.last == "Error"
        return BUG
    assert victim.close == uncut.close
    assert victim.last == uncut.last
    assert set(victim.utterances) <= set(uncut.utterances)
    return ENDED if victim.utterances == uncut.utterances else UNREAD


def judge(result: Result, uncut: Result) -> str:
    """All that holds after any cut; returns what came of it."""
    way = came(result, uncut.victim)
    assert len(set(result.victim.utterances)) == len(result.victim.utterances)
    assert result.bystander == uncut.bystander
    assert result.outcomes == result.admitted
    if way is CONTAINED:
        (problem,) = result.violations
        assert problem.endswith("P1: 1 exceptions reached the listener")
    else:
        assert not result.violations
    return way


def cut_everywhere(scenario: str, stride: int) -> Counter[str]:
    """Cut one scenario at every so many steps, in each task and way; counts what came of it."""
    count = Cut(-1, "")
    uncut = play(scenario, count)
    assert not uncut.violations
    assert {*OURS, *STACK, CONNECTION} == {*count.seen, *AFTER_A_LOSS}
    assert (scenario == "engine_death") == set(count.seen).issuperset(AFTER_A_LOSS)
    cuts = [(actor, raises) for actor in (*OURS, *STACK) for raises in (False, True)]
    counted: Counter[str] = Counter()
    for number, (actor, raises) in enumerate([(CONNECTION, False), *cuts]):
        may = ways(actor, scenario, raises=raises)
        for step in range(number * 7 % stride, count.steps, stride):
            cut = Cut(step, actor, raises)
            place = f"{scenario}: {actor} {'fails' if raises else 'is cancelled'} at step {step}"
            try:
                result = play(scenario, cut)
                way = judge(result, uncut)
                assert way in may, (way, result.victim)
            except BaseException as error:
                error.add_note(place)
                raise
            counted[way if cut.done else "the task was not there yet"] += 1
    print(f"{scenario}: {counted.total()} cuts in {count.steps} steps")
    print("\n".join(f"{times:6} {way}" for way, times in counted.most_common()))
    return counted


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_p5_p11_a_cut_here_and_there(scenario: str) -> None:
    counted = cut_everywhere(scenario, STRIDE)
    assert min(counted[BUG], counted[ABANDONED], counted[CONTAINED]) > 0


@pytest.mark.chaos
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_p5_p11_a_cut_at_every_step(scenario: str) -> None:
    counted = cut_everywhere(scenario, 1)
    assert counted.total() > 1500
