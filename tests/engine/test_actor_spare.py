"""The engine actor's spare slots: for streams that stand beside the one that they follow."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.engine.engine_harness import SPEC, hear, running
from tests.engine.scripted import Script, Scripted
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.engine.port import EngineFullError, spare_slots, with_spare

TWO = Script(slots=2, spare=1)


def rolling(actor: EngineActor) -> tuple[int, int]:
    figures = actor.statistics()
    return figures.slots_taken, figures.slots_rolling


@pytest.mark.parametrize("which", ["old", "new"])
async def test_a_stream_beside_another_takes_a_spare_slot_until_one_of_them_is_over(
    which: str, autojump_clock: MockClock
) -> None:
    async with running(Scripted(TWO).backend) as actor:
        old = actor.open(SPEC)
        new = actor.open(SPEC, beside=old)
        assert rolling(actor) == (2, 1)
        other = actor.open(SPEC)  # it is the second utterance of two
        with pytest.raises(EngineFullError, match="engine slots"):
            actor.open(SPEC)
        with pytest.raises(EngineFullError, match="spare slots"):
            actor.open(SPEC, beside=other)
        over = old if which == "old" else new
        over.finish()
        await hear(over)
        await trio.sleep(0.1)
        assert rolling(actor) == (2, 0)
        with pytest.raises(EngineFullError):
            actor.open(SPEC)
        actor.open(SPEC, beside=other)
        assert rolling(actor) == (3, 1)
        figures = actor.statistics()
        assert (figures.streams_refused, figures.rolls_refused) == (2, 1)


async def test_beside_a_stream_that_is_over_it_needs_a_slot_like_any_other(
    autojump_clock: MockClock,
) -> None:
    async with running(Scripted(TWO).backend) as actor:
        old = actor.open(SPEC)
        old.abort()
        actor.open(SPEC, beside=old)
        assert rolling(actor)[1] == 0
        actor.open(SPEC)
        with pytest.raises(EngineFullError, match="engine slots"):
            actor.open(SPEC, beside=old)


async def test_a_stream_beside_another_that_could_not_open_leaves_no_trace(
    autojump_clock: MockClock,
) -> None:
    scripted = Scripted(TWO, [TWO, Script(open_raises=True)])
    async with running(scripted.backend) as actor:
        old = actor.open(SPEC)
        with pytest.raises(Exception, match="could not open"):
            actor.open(SPEC, beside=old)
        assert rolling(actor) == (1, 0)
        actor.open(SPEC, beside=old)
        assert rolling(actor) == (2, 1)


async def test_the_death_of_the_engine_frees_spare_slots_too(autojump_clock: MockClock) -> None:
    scripted = Scripted(TWO)
    async with running(scripted.backend) as actor:
        actor.open(SPEC, beside=actor.open(SPEC))
        scripted.kill()
        await trio.sleep(0.1)
        assert rolling(actor) == (0, 0)
        await actor.wait_ready()
        actor.open(SPEC, beside=actor.open(SPEC))
        assert rolling(actor) == (2, 1)


@given(asked=st.integers(1, 500), streams=st.integers(0, 600))
def test_slots_and_spare_slots_fit_and_waste_nothing(asked: int, streams: int) -> None:
    slots, spare = with_spare(asked, streams)

    assert 1 <= slots <= asked
    assert slots + spare <= max(streams, 1)
    assert spare == spare_slots(slots) or slots == 1
    if slots < asked and streams > 1:
        assert slots + 1 + spare_slots(slots + 1) > streams
