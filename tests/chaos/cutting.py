"""One cut through the whole server: at a task step, one task of one connection ends or fails.

`Cut` is an instrument of trio's. The first connection that is served after `arm` is the victim, and
each task below it, ours or of the web stack, runs in a cancel scope of its own. Steps are counted
of those tasks and of the engine's. At the chosen step the youngest task with the chosen name is
cancelled, alone; with `raises` it ends in a `PlantedError` instead, as if it had a bug.

A task that waits when it is cut is woken by it; one that has been woken is cut at its next wait.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final

import attrs
import trio
from trio.abc import Instrument

CONNECTION: Final = "_run_handler"
"""The task that is all of one connection: trio's listener starts it."""
ENGINE: Final = "engine"


class PlantedError(Exception):
    """What a task ends in that is made to fail."""


def short(task: trio.lowlevel.Task) -> str:
    """`reader`, `limiter`, `_downlink`: by the function, or by the module where that is `run`."""
    *path, last = task.name.split(".")
    owner = [name for name in path if name.islower()]
    return owner[-1] if last == "run" and owner else last


@attrs.define(eq=False)
class Cut(Instrument):
    """See the module."""

    step: int
    actor: str
    raises: bool = False
    steps: int = 0
    """Counted since `arm`."""
    done: bool = False
    """The cut hit a task that was there."""
    seen: dict[str, int] = attrs.field(factory=dict)
    """Steps of each of the victim's tasks, by its name."""
    _armed: bool = False
    _family: set[trio.lowlevel.Task] = attrs.field(factory=set)
    _scopes: dict[str, trio.CancelScope] = attrs.field(factory=dict)

    def arm(self) -> None:
        self._armed = True

    def disarm(self) -> None:
        self._armed = False

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        nursery = task.parent_nursery
        if not self._armed or nursery is None:
            return
        founds = not self._family and task.name.endswith(CONNECTION)
        if founds or nursery.parent_task in self._family:
            self._family.add(task)
            scope = self._scopes[short(task)] = trio.CancelScope()
            body: Any = self._within(scope, task.coro)
            task.coro = body

    async def _within(self, scope: trio.CancelScope, body: Awaitable[object]) -> None:
        with scope:
            await body
        if scope.cancelled_caught and self.raises:
            raise PlantedError

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        ours = task in self._family
        if not self._armed or not (ours or ENGINE in task.name):
            return
        if ours:
            self.seen[short(task)] = self.seen.get(short(task), 0) + 1
        if self.steps == self.step and self.actor in self._scopes:
            self.done = True
            self._scopes[self.actor].cancel(reason="cut")
        self.steps += 1
