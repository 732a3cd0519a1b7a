"""The GPU profiles in config/: settings that load, that vLLM's engine takes, each with a reason."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from dotenv import dotenv_values

from voxtral_actors.engine.port import spare_slots
from voxtral_actors.engine.vllm_args import check
from voxtral_actors.planning import plan
from voxtral_actors.planning.dimensions import VOXTRAL_MINI_4B
from voxtral_actors.planning.gpus import GPUS
from voxtral_actors.settings import Settings, load

CONFIG = Path(__file__).parents[1] / "config"
PROFILES = sorted(CONFIG.glob("[!.]*.env"))
LOAD = plan.Load(utterance=10, duty=1, refused=0.001, delay_ms=400)


def settings(profile: Path) -> Settings:
    values = {name: value or "" for name, value in dotenv_values(profile).items()}
    return load({"VOXTRAL_API_KEY": "any", "MAX_CONCURRENT_CONNECTIONS": "1", **values})


def test_there_is_one_for_each_gpu() -> None:
    assert {profile.stem for profile in PROFILES} == {"l4", "l40s", "a100", "h100", "h200"}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_it_loads_and_fits_the_engine(profile: Path) -> None:
    made = settings(profile)

    check(made)
    # A step has at least a token for each stream, and the first frame of one that begins.
    assert made.max_num_batched_tokens >= made.max_num_seqs + 39


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_its_streams_have_room_in_the_kv_cache(profile: Path) -> None:
    """As many as the planner finds, or a few less, with the spare ones for those that roll."""
    made = settings(profile)
    hardware = plan.Hardware(
        gpu=GPUS[profile.stem], gpus=1, utilization=made.gpu_memory_utilization, kv_dtype="auto"
    )
    spare = made.max_model_len - plan.max_model_len(LOAD)
    longest = attrs.evolve(LOAD, utterance=LOAD.utterance + spare // plan.TOKENS_PER_SECOND)

    kv_cache = plan.make(VOXTRAL_MINI_4B, hardware, longest).limits[0]

    assert 0.85 * kv_cache.streams <= made.max_num_seqs
    assert made.max_num_seqs + spare_slots(made.max_num_seqs) <= kv_cache.streams


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_every_value_has_its_reason_above_it(profile: Path) -> None:
    lines = profile.read_text("utf-8").splitlines()
    values = [number for number, line in enumerate(lines) if line and not line.startswith("#")]

    assert values
    for number in values:
        above = lines[number - 1]
        # Two values may share a reason.
        assert above.startswith("# ") or (number - 1) in values
