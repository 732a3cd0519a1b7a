"""What a process that serves does about Python's garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import trio

from tests.engine.scripted import Script, Scripted
from voxtral_actors import limits
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.server import collector


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_the_collector_looks_seldom_and_at_old_objects_as_ever() -> None:
    _, *older = gc.get_threshold()
    collector.look_seldom()
    assert gc.get_threshold() == (limits.COLLECTOR_OBJECTS, *older)


async def test_what_the_first_start_has_left_is_never_looked_at(
    autojump_clock: trio.abc.Clock,
) -> None:
    engine = EngineActor(Scripted(Script(start_s=100)).backend)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.run)
        nursery.start_soon(collector.forget_the_start, engine)
        await trio.sleep(99)
        assert gc.get_freeze_count() == 0
        await trio.sleep(2)
        assert gc.get_freeze_count() > 0
        nursery.cancel_scope.cancel()
