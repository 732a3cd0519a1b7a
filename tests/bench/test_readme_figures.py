"""The README quotes what `make bench` wrote, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SECTION = (
    (ROOT / "README.md")
    .read_text(encoding="utf-8")
    .partition("\n## How fast it is\n")[2]
    .partition("\n## ")[0]
)


def result(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((ROOT / "bench" / "results" / name).read_text())
    return read


@pytest.mark.parametrize("level", ["1", "8", "16", "32"])
def test_the_table_against_vllm_is_the_measured_one(level: str) -> None:
    measured = result("against_vllm.json")["levels"][level]
    ratio = measured["ours_by_theirs"]
    (row,) = [line for line in SECTION.splitlines() if line.startswith(f"| {level} |")]
    _, _, cpu, *lags, _ = (cell.strip() for cell in row.split("|"))

    assert cpu == f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"
    for server, lag in zip(("voxtral-actors", "vLLM"), lags, strict=True):
        told = measured[server]
        behind = ", behind live" if told["share_of_live_pace"] < 0.95 else ""
        assert lag == f"{told['lag_ms']['p99']['median']:.0f} ms{behind}"


def test_the_web_tiers_figures_are_the_measured_ones() -> None:
    measured = result("web_tier.json")
    text, binary = (measured["swallowed"][kind] for kind in ("text", "binary"))
    plain = "hypercorn+quart-trio"

    for kind, words in ((text, "JSON and"), (binary, "a binary message")):
        us = kind["voxtral-actors"]["us"]["median"]
        assert f"{us:.0f} us" in SECTION, words
    times = " and ".join(f"{kind[plain]['ours_by_this']['median']:.2f}" for kind in (text, binary))
    assert f"{times} times" in SECTION.replace("\n", " ")
    assert f"takes {measured['idle']['kb_each']:.0f} KB" in SECTION
