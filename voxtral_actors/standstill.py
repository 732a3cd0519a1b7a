"""Telling a late watchdog from a late process.

A watchdog that wakes long after its time has learnt nothing about what it watches: the whole
process stood still (stopped, swapped out, its host suspended, its loop held), and what the watchdog
waited for may be waiting in a queue beside it.
"""

from __future__ import annotations

import trio

from voxtral_actors.limits import STANDSTILL_S


def stood_still(due: float) -> bool:
    """Whether it is so much later than `due`, on trio's clock, that the process must have stood."""
    return trio.current_time() - due > STANDSTILL_S
