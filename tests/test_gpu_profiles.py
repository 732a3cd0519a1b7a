"""The GPU profiles in config/: settings that load, that vLLM's engine takes, each with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from dotenv import dotenv_values

from voxtral_actors.engine.vllm_args import check
from voxtral_actors.settings import Settings, load

CONFIG = Path(__file__).parents[1] / "config"
PROFILES = sorted(CONFIG.glob("[!.]*.env"))
GIB = 2**30
BLOCK = 16 * 2**20
WEIGHTS = 8.3 * GIB
REST = 2 * GIB
"""Activations and graphs. [guess]"""

MEMORY = {"l4": 22.0, "l40s": 44.4, "a100": 79.2, "h100": 79.6, "h200": 139.8}
"""What the driver leaves to programs, in GiB."""


def settings(profile: Path) -> Settings:
    values = {name: value or "" for name, value in dotenv_values(profile).items()}
    return load({"VOXTRAL_API_KEY": "any", "MAX_CONCURRENT_CONNECTIONS": "1", **values})


def test_there_is_one_for_each_gpu() -> None:
    assert {profile.stem for profile in PROFILES} == MEMORY.keys()


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_it_loads_and_fits_the_engine(profile: Path) -> None:
    made = settings(profile)

    check(made)
    # A step has at least a token for each stream, and the first frame of one that begins.
    assert made.max_num_batched_tokens >= made.max_num_seqs + 39


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_its_streams_have_room_in_the_kv_cache(profile: Path) -> None:
    """By the arithmetic that the file explains."""
    made = settings(profile)
    blocks = min(made.max_model_len, 8192) / 128 + 19
    left = made.gpu_memory_utilization * MEMORY[profile.stem] * GIB - WEIGHTS - REST

    assert 0.85 < made.max_num_seqs * blocks * BLOCK / left <= 1


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_every_value_has_its_reason_above_it(profile: Path) -> None:
    lines = profile.read_text("utf-8").splitlines()
    values = [number for number, line in enumerate(lines) if line and not line.startswith("#")]

    assert values
    for number in values:
        above = lines[number - 1]
        # Two values may share a reason.
        assert above.startswith("# ") or (number - 1) in values
