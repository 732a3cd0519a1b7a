"""`voxtral-actors plan` as its user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from voxtral_actors.cli import main
from voxtral_actors.planning.dimensions import VOXTRAL_MINI_4B, ModelFileError, read


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", *arguments])


def params() -> dict[str, Any]:
    return {
        "dim": 3072,
        "n_layers": 26,
        "head_dim": 128,
        "hidden_dim": 9216,
        "n_heads": 32,
        "n_kv_heads": 8,
        "vocab_size": 131_072,
        "sliding_window": 8192,
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": {
                    "audio_encoding_args": {"num_mel_bins": 128},
                    "dim": 1280,
                    "n_layers": 32,
                    "head_dim": 64,
                    "hidden_dim": 5120,
                    "n_heads": 32,
                    "n_kv_heads": 32,
                    "sliding_window": 750,
                },
                "downsample_args": {"downsample_factor": 4},
            }
        },
    }


def test_it_says_what_binds_and_prints_the_settings_to_use() -> None:
    done = plan("--gpu", "l40s", "--utterance", "15s", "--duty", "0.5")

    assert done.exit_code == 0, done.output
    assert done.output.count("<- binds") == 1
    assert "VLLM_MAX_NUM_SEQS=" in done.output
    assert "estimated" in done.output


def test_json_has_the_same_plan() -> None:
    done = plan("--gpu", "h100", "--steps", "1=5,8=8", "--json")

    made = json.loads(done.output)
    fit = min(limit["streams"] for limit in made["limits"])
    assert fit - 2 < made["streams"] + made["spare"] <= fit
    assert made["settings"]["VLLM_MAX_NUM_SEQS"] == str(made["streams"])
    assert made["step_measured"] is True


def test_a_params_file_gives_the_dimensions(tmp_path: Path) -> None:
    file = tmp_path / "params.json"
    file.write_text(json.dumps(params()))

    assert read(file) == VOXTRAL_MINI_4B
    assert plan("--gpu", "l4", "--params", str(file)).output == plan("--gpu", "l4").output


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("nothing", "is not JSON"),
        ("[]", "is not of a Voxtral Realtime"),
        ('{"dim": 1}', "no 'multimodal'"),
    ],
)
def test_another_file_is_refused_with_its_name(tmp_path: Path, content: str, why: str) -> None:
    file = tmp_path / "params.json"
    file.write_text(content)

    with pytest.raises(ModelFileError, match=why):
        read(file)
    done = plan("--gpu", "l4", "--params", str(file))
    assert done.exit_code == 1
    assert str(file) in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--utterance", "soon"],
        ["--utterance", "0s"],
        ["--utterance", "25h"],
        ["--duty", "0"],
        ["--steps", "1=5"],
        ["--steps", "0=5,1=6"],
        ["--steps", "one=5,2=6"],
        ["--delay", "90"],
    ],
)
def test_bad_values_are_usage_errors_that_quote_them(arguments: list[str]) -> None:
    done = plan("--gpu", "l4", *arguments)

    assert done.exit_code == 2
    assert arguments[1] in done.output


def test_steps_that_fall_are_refused() -> None:
    done = plan("--gpu", "l4", "--steps", "1=5,2=4")

    assert done.exit_code == 1
    assert "longer with more streams" in done.output
