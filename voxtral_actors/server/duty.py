"""Work that anybody may ask for again and again, kept to a small share of the loop's time.

It is timed, others' turns in between included, and then pauses in proportion: what costs a
millisecond may be had all the time, what costs a tenth of a second once a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from voxtral_actors.limits import DUTY_PAUSE_MAX_S, DUTY_SHARE


class Duty:
    """The pauses of one kind of work."""

    def __init__(self) -> None:
        self.due_at = -math.inf
        """When it may be done again, on trio's clock."""

    @property
    def due(self) -> bool:
        return trio.current_time() >= self.due_at

    @contextmanager
    def work(self) -> Iterator[None]:
        started = trio.current_time()
        try:
            yield
        finally:
            ended = trio.current_time()
            pause = (ended - started) * (1 / DUTY_SHARE - 1)
            self.due_at = ended + min(pause, DUTY_PAUSE_MAX_S)
