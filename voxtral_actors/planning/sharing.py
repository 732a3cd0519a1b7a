"""How many sessions can share a number of streams, when each has one open only part of the time.

Engset's loss system: a finite number of sources, `streams` servers, and who finds no server free is
turned away (T. O. Engset, 1918; ITU-D Teletraffic Engineering Handbook, chapter 8). A session that
begins an utterance meets the others, so with `a = duty / (1 - duty)` its chance to be refused is

    C(n-1, s) a^s / sum(C(n-1, i) a^i for i = 0 .. s).

It holds for utterances and pauses of any length, for only their means matter.
"""

from __future__ import annotations


def refused(sessions: int, streams: int, duty: float) -> float:
    """The share of utterances that find no stream free; `duty` is in 0 .. 1."""
    others = sessions - 1
    if others < streams:
        return 0.0
    if duty >= 1 or streams == 0:
        return 1.0
    load = duty / (1 - duty)
    # The inverse of the formula, as a sum that grows term by term and never leaves the floats.
    inverse = term = 1.0
    for taken in range(streams, 0, -1):
        term *= taken / ((others - taken + 1) * load)
        inverse += term
        if term < inverse * 1e-15:
            break
    return 1 / inverse


def sessions(streams: int, duty: float, allowed: float) -> int:
    """The most sessions of which at most the share `allowed` of utterances is refused."""
    most = streams  # nobody is refused
    while refused(most + 1, streams, duty) <= allowed:
        most += 1
    return most
