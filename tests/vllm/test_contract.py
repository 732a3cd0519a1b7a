"""The contract that every engine keeps, kept by this one.

The tests are those of the other engines. All but one run on the shared engine, whose life goes on;
the one about death has engines of its own.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import test_contract as contract
from tests.engine.test_contract import (
    test_a_stream_too_many_is_refused_until_a_slot_is_free,
    test_abort_ends_the_stream_and_frees_the_slot_at_any_time,
    test_calls_after_the_end_are_harmless,
    test_cancelling_the_actor_ends_streams_and_leaves_nothing,
    test_each_stream_gets_its_own_text,
    test_finish_without_audio_is_an_empty_utterance,
    test_p15_streams_hear_of_the_engines_death_and_the_next_life_serves,
    test_text_and_position_are_exact_however_the_audio_is_cut,
)
from tests.vllm.vllm_harness import (
    START_S,
    SharedVllm,
    Visitor,
    engine_core,
    settings,
)
from voxtral_actors import limits
from voxtral_actors.engine.vllm_realtime import create

__all__ = [
    "test_a_stream_too_many_is_refused_until_a_slot_is_free",
    "test_abort_ends_the_stream_and_frees_the_slot_at_any_time",
    "test_calls_after_the_end_are_harmless",
    "test_cancelling_the_actor_ends_streams_and_leaves_nothing",
    "test_each_stream_gets_its_own_text",
    "test_finish_without_audio_is_an_empty_utterance",
    "test_p15_streams_hear_of_the_engines_death_and_the_next_life_serves",
    "test_text_and_position_are_exact_however_the_audio_is_cut",
]


@pytest.fixture
def subject(
    session_vllm: SharedVllm,
    said: dict[bytes, str],
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[contract.Subject]:
    monkeypatch.setattr(limits, "ENGINE_RESTART_FIRST_S", 0.01)
    audio = list(said.items())
    if "p15" not in request.node.name:
        session_vllm.start()
        yield contract.Subject(lambda: Visitor(session_vllm, contract.SLOTS), audio, lambda: None)
        return
    session_vllm.stop()
    monkeypatch.setattr(contract, "LIMIT_S", 2 * START_S)
    slots = settings(model, VLLM_MAX_NUM_SEQS=str(contract.SLOTS))
    yield contract.Subject(
        lambda: create(slots), audio, lambda: os.kill(engine_core(), signal.SIGKILL)
    )
