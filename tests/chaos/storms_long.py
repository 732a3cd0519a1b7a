"""Storms of long utterances: ones that roll in pauses, and ones whose model falls silent.

A stream that begins in a pause begins on the grid of the scripted engine's frames, and so does one
that hears audio again. So the words stay the same, and the judge asks for each of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import attrs

from tests.chaos import plans, toxics, visitors
from tests.chaos.guests import Storm, guests
from tests.chaos.world import ROOMY
from tests.engine.scripted import FRAME, NEVER, Part, Script

CAST = [
    visitors.client(plan)
    for plan in (
        plans.lecturer, plans.lecturer, plans.lecturer, plans.lecturer, plans.speaker,
        plans.canceller, plans.vanisher,
    )
]  # fmt: skip


def rolls(rng: random.Random) -> Storm:
    """People who speak for long, few spare slots, and an engine that loses streams meanwhile."""
    script = Script(
        slots=rng.choice((3, 64)),
        spare=rng.choice((1, 1, 4)),
        start_s=rng.choice((0, 0.5)),
        die_at_s=rng.choice((NEVER, NEVER, 11)),
        step_s=rng.choice((0, 0.02, 0.06)),
        late=rng.random() < 0.3,
        release_after_s=rng.choice((0, 0.2)),
    )
    fails = [rng.choice((NEVER, NEVER, NEVER, rng.uniform(0, 200) * FRAME)) for _ in range(9)]
    streams = [attrs.evolve(script, fail_after=after) for after in fails]
    return Storm(
        kind="rolls",
        guests=guests(rng, rng.randint(2, 8), CAST, toxics.gentle, 4),
        env={
            "VOXTRAL_SEGMENT_S": rng.choice(("5", "7")),
            "WS_MAX_AUDIO_BACKLOG_S": rng.choice(("2", "30")),
        },
        script=script,
        streams=lambda number: streams[number % len(streams)],
        kills_at_s=tuple(rng.uniform(0, 30) for _ in range(rng.choice((0, 0, 1, 2)))),
        stop_at_s=rng.choice((NEVER, NEVER, rng.uniform(5, 20))),
        step_s=0.06,
    )


class Ruts:
    """The first stream of each utterance falls silent somewhere, and says no word any more."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._known: set[str] = set()

    def __call__(self, script: Script, label: str) -> Part:
        if label not in self._known and self._rng.random() < 0.8:
            script = attrs.evolve(script, mute_after=self._rng.randrange(2 * plans.WORDY_S) * FRAME)
        self._known.add(label)
        return Part(script, label)


def ruts(rng: random.Random) -> Storm:
    """A model that falls silent over speech, under people who speak for long (P14)."""
    script = attrs.evolve(ROOMY, spare=64, rolls=True, step_s=rng.choice((0, 0.02, 0.06)))
    lecturer = visitors.client(plans.lecturer)
    part: Callable[[], Ruts] = partial(Ruts, rng.randrange(2**32))
    return Storm(
        kind="ruts",
        guests=guests(rng, rng.randint(1, 3), [lecturer], toxics.gentle, 4),
        env={"VOXTRAL_SEGMENT_S": "0", "VOXTRAL_MUTE_S": "2"},
        script=script,
        part=part,
        kills_at_s=tuple(rng.uniform(0, 30) for _ in range(rng.choice((0, 0, 1)))),
        step_s=0.06,
    )
