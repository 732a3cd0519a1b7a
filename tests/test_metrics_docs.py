"""docs/metrics.md has every metric of the server, and says of each what to do when it moves.

The first four columns are what `/metrics` says. After a change, `UPDATE_METRICS=1 make test
ARGS=tests/test_metrics_docs.py` writes them anew and keeps the advice; a new metric needs some.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import trio
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.server.harness import Served, serving
from voxtral_actors.engine.vllm_figures import Figures
from voxtral_actors.server.invariants import CHECKS
from voxtral_actors.server.metrics import PREFIX

DOCS = Path(__file__).parent.parent / "docs" / "metrics.md"
ROW = re.compile(
    r"^\| `(?P<name>\w+)` \|(?P<facts>[^|]*\|[^|]*\|[^|]*)\|(?P<advice>[^|]*)\|$", re.MULTILINE
)


async def scraped(server: Served) -> list[Metric]:
    """Every family of our own, each with a sample."""
    service = server.running.service
    service.outcomes["normal", "end"] += 1
    told = service.utterances
    for counts in (told.given_up, told.ended, told.replays, told.segments):
        counts["some"] += 1
    service.admission.refused["at_capacity"] += 1
    server.running.listener._ended["closed"] += 1
    body = (await server.http("/metrics")).body.decode()
    families = text_string_to_metric_families(body)
    return [family for family in families if family.name.startswith(PREFIX)]


def facts(family: Metric) -> tuple[str, str]:
    """Name of a metric, and the columns that follow from it."""
    name = family.name + "_total" * (family.type == "counter")
    labels = {label for sample in family.samples for label in sample.labels} - {"le"}
    shown = ", ".join(f"`{label}`" for label in sorted(labels))
    return name, f" {family.type} | {shown} | {family.documentation} "


async def test_the_docs_have_every_metric_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(10):
        async with serving() as server:
            monkeypatch.setattr(server.engine, "figures", Figures().totals)
            families = await scraped(server)
    exported = dict(map(facts, families))
    text = DOCS.read_text(encoding="utf-8")
    if os.environ.get("UPDATE_METRICS"):

        def renewed(row: re.Match[str]) -> str:
            found = exported.get(row["name"], row["facts"])
            return f"| `{row['name']}` |{found}|{row['advice']}|"

        text = ROW.sub(renewed, text)
        DOCS.write_text(text, encoding="utf-8")
    documented = {row["name"]: row["facts"] for row in ROW.finditer(text)}

    assert documented == exported
    assert [row["name"] for row in ROW.finditer(text) if len(row["advice"].strip()) < 10] == []


async def test_every_name_keeps_the_conventions_of_prometheus() -> None:
    with trio.fail_after(10):
        async with serving() as server:
            families = await scraped(server)
    for family in families:
        assert re.fullmatch(r"voxtral_[a-z]+(_[a-z]+)*", family.name), family.name
        assert family.documentation.endswith("."), family.name
        assert family.samples, family.name
    invariants = {family.name for family in families if "_invariant_" in family.name}
    assert {f"{PREFIX}invariant_{name}" for name in CHECKS} < invariants
