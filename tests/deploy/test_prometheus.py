"""The scrape configuration, the alerts and the dashboard, on Prometheus's own tools.

The names in them are those of docs/metrics.md, which another test holds to what /metrics says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.process_collector import ProcessCollector

from tests.deploy.tools import CONFIG, DOCS, document, judged
from voxtral_actors.connection.supervisor import Kind
from voxtral_actors.connection.transport import CLIENT_LEFT
from voxtral_actors.protocol.closing import Close
from voxtral_actors.server.guarded_stream import Ending

FOLDER = CONFIG / "prometheus"
RULES = FOLDER / "voxtral.rules.yml"
DASHBOARD = CONFIG / "grafana" / "dashboards" / "voxtral.json"
DRAWN = json.loads(DASHBOARD.read_text("utf-8"))

METRICS = (DOCS / "metrics.md").read_text("utf-8")
DOCUMENTED = set(re.findall(r"^\| `(\w+)` \|", METRICS, re.MULTILINE))
OF_THE_PROCESS = {family.name for family in ProcessCollector(registry=None).collect()}
REASONS = {close.spec.slug for close in Close} | set(Ending) | {CLIENT_LEFT}


def expressions(node: object) -> Iterator[str]:
    """Every `expr` of a file, however deep."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "expr":
                yield value
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for item in node:
            yield from expressions(item)


def all_expressions() -> list[str]:
    return [*expressions(document(RULES)), *expressions(DRAWN)]


def alerts() -> list[dict[str, Any]]:
    return [rule for group in document(RULES)["groups"] for rule in group["rules"]]


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    judged("promtool", "check", "config", FOLDER / "prometheus.yml")
    judged("promtool", "check", "rules", RULES)


def test_the_alerts_fire_when_they_should_and_not_else() -> None:
    assert "SUCCESS" in judged("promtool", "test", "rules", FOLDER / "voxtral.rules.test.yml")


def test_every_expression_of_the_dashboard_can_be_parsed(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expr.replace("$__rate_interval", "1m")}
        for number, expr in enumerate(expressions(DRAWN))
    ]
    file = tmp_path / "dashboard.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    judged("promtool", "check", "rules", file)


def test_every_metric_that_is_asked_for_exists() -> None:
    strangers = set()
    for expr in all_expressions():
        words = set(re.findall(r"\b(?:voxtral|process)_\w+", expr))
        for word in words - {"voxtral_invariant_"}:  # what a pattern begins with
            name = re.sub(r"_(bucket|sum|count)$", "", word)
            if name not in DOCUMENTED and name.removesuffix("_total") not in OF_THE_PROCESS:
                strangers.add(word)
    assert strangers == set()


def test_the_pattern_of_the_invariants_matches_those_that_are_gauges() -> None:
    invariants = {name for name in DOCUMENTED if name.startswith("voxtral_invariant_")}
    patterns = {
        pattern
        for expr in all_expressions()
        for pattern in re.findall(r'__name__=~"([^"]+)", __name__!~"([^"]+)"', expr)
    }
    assert len(patterns) == 1
    (wanted, unwanted) = patterns.pop()
    matched = {
        name
        for name in DOCUMENTED
        if re.fullmatch(wanted, name) and not re.fullmatch(unwanted, name)
    }
    assert matched == {name for name in invariants if not name.endswith("_total")}


def test_every_reason_and_kind_that_is_asked_for_exists() -> None:
    text = "\n".join(all_expressions())
    reasons = re.findall(r'reason!?[=~]+"([^"]+)"', text)
    kinds = re.findall(r'kind="([^"]+)"', text)

    assert reasons
    assert {reason for found in reasons for reason in found.split("|")} <= REASONS
    assert set(kinds) == {Kind.BUG.value}


def test_every_alert_leads_to_its_section_of_the_guide() -> None:
    guide = (DOCS / "operations.md").read_text("utf-8")
    sections = re.findall(r"^### (Voxtral\w+)$", guide, re.MULTILINE)

    assert sections == [alert["alert"] for alert in alerts()]
    for alert in alerts():
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"
        assert alert["labels"]["severity"] in {"page", "ticket"}


def test_the_alerts_in_the_docs_are_those_of_the_rules() -> None:
    named = set(re.findall(r"\bVoxtral[A-Z]\w+", METRICS))
    drawn = set(re.findall(r"\bVoxtral[A-Z]\w+", DASHBOARD.read_text("utf-8")))

    assert named | drawn <= {alert["alert"] for alert in alerts()}


def test_the_alert_about_a_long_drain_waits_for_longer_than_a_drain() -> None:
    (rule,) = (alert for alert in alerts() if alert["alert"] == "VoxtralDrainTooLong")
    assert rule["for"] == "2m"  # 120 s; the longest drain of the deployments here takes 95


def test_the_dashboard_has_panels_that_do_not_cover_each_other() -> None:
    panels = DRAWN["panels"]
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
        assert panel["type"] == "row" or panel["description"], panel["title"]
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_grafana_is_given_the_source_that_the_dashboard_asks_for() -> None:
    provisioning = CONFIG / "grafana" / "provisioning"
    (source,) = document(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    (provider,) = document(provisioning / "dashboards" / "voxtral.yaml")["providers"]
    (variable,) = (v for v in DRAWN["templating"]["list"] if v["type"] == "datasource")
    services = document(CONFIG / "docker" / "compose.yaml")["services"]

    assert variable["current"]["value"] == source["uid"]
    assert variable["query"] == source["type"]
    assert source["url"] == "http://prometheus:9090"
    mount = f"../grafana/dashboards:{provider['options']['path']}:ro"
    assert mount in services["grafana"]["volumes"]
