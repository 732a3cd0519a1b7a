"""The plan: that each limit can bind, and that sharing follows Engset's formula."""

from __future__ import annotations

from math import comb

import attrs
import pytest

from voxtral_actors.engine.port import spare_slots
from voxtral_actors.planning import plan, sharing, steps
from voxtral_actors.planning.dimensions import VOXTRAL_MINI_4B
from voxtral_actors.planning.gpus import GPUS

LIVE = plan.Load(utterance=15, duty=1, refused=0.001, delay_ms=400)


def hardware(gpu: str, *, gpus: int = 1, utilization: float = 0.92) -> plan.Hardware:
    return plan.Hardware(gpu=GPUS[gpu], gpus=gpus, utilization=utilization, kv_dtype="auto")


def test_long_utterances_are_bound_by_memory_and_short_ones_by_the_step() -> None:
    quick = {1: 3.0, 8: 4.0}

    long = plan.make(VOXTRAL_MINI_4B, hardware("h100"), attrs.evolve(LIVE, utterance=600), quick)
    short = plan.make(VOXTRAL_MINI_4B, hardware("h100"), LIVE)

    assert long.binding.name == "KV cache"
    assert short.binding.name == "step time"
    assert long.streams < short.streams


def test_the_encoder_cache_binds_where_the_largest_batch_is_too_small() -> None:
    quick = {1: 1.0, 2: 1.01}

    made = plan.make(VOXTRAL_MINI_4B, hardware("b200"), LIVE, quick)

    assert made.binding.name == "encoder cache"
    assert made.streams + made.spare == plan.BATCH_CHOICES[-1] // plan.prefix_tokens(400)


def test_what_fits_is_shared_with_the_streams_that_utterances_go_over_to() -> None:
    made = plan.make(VOXTRAL_MINI_4B, hardware("l40s"), attrs.evolve(LIVE, utterance=600))

    assert made.spare == spare_slots(made.streams) > 0
    assert made.streams + made.spare <= made.binding.streams < made.streams + made.spare + 2


def test_a_model_that_does_not_fit_carries_nobody() -> None:
    made = plan.make(
        VOXTRAL_MINI_4B, hardware("l4", utilization=0.3), attrs.evolve(LIVE, utterance=600)
    )

    assert made.binding.name == "KV cache"
    assert (made.streams, made.sessions) == (0, 0)


def test_two_gpus_hold_more_than_twice_the_streams_of_one() -> None:
    """The weights are shared out too."""
    load = attrs.evolve(LIVE, utterance=600)
    one, two = (
        plan.make(VOXTRAL_MINI_4B, hardware("l4", gpus=count), load).limits[0].streams
        for count in (1, 2)
    )

    assert two > 2 * one


def test_sharing_is_engsets_formula() -> None:
    n, s, duty = 30, 10, 0.25
    load = duty / (1 - duty)
    terms = [comb(n - 1, i) * load**i for i in range(s + 1)]

    assert sharing.refused(n, s, duty) == pytest.approx(terms[-1] / sum(terms))


def test_as_many_sessions_as_streams_are_never_refused() -> None:
    assert sharing.refused(10, 10, 0.99) == 0
    assert sharing.sessions(10, 1.0, 0.001) == 10
    assert sharing.sessions(0, 0.5, 0.001) == 0


def test_a_large_trunk_neither_overflows_nor_loses_its_figures() -> None:
    most = sharing.sessions(400, 0.05, 0.001)

    assert sharing.refused(most, 400, 0.05) <= 0.001 < sharing.refused(most + 1, 400, 0.05)


def test_the_published_steps_lie_on_the_line() -> None:
    line = steps.measured(steps.PUBLISHED_H200_MS)

    for streams, ms in steps.PUBLISHED_H200_MS.items():
        assert line.ms(streams) == pytest.approx(ms, rel=0.03)


@pytest.mark.parametrize("points", [{1: 5.0}, {1: 5.0, 2: 5.0}, {1: 5.0, 2: 4.0}])
def test_steps_that_make_no_rising_line_are_refused(points: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="measured step"):
        steps.measured(points)
