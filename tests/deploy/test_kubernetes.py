"""The manifests: built by kustomize, checked against the schemas, and at one with the code."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values

from tests.deploy.tools import CONFIG, ROOT, document, documents, judged, module
from voxtral_actors.settings import Settings, load

FOLDER = CONFIG / "k8s"
VERSIONS = ["1.30", "1.34"]
NO_MANIFESTS = {"kustomization.yaml", "prometheus-adapter.yaml"}


def manifests() -> list[dict[str, Any]]:
    return [
        found
        for path in sorted(FOLDER.glob("*.yaml"))
        if path.name not in NO_MANIFESTS
        for found in documents(path)
    ]


def manifest(kind: str, name: str = "voxtral-actors") -> dict[str, Any]:
    (found,) = (m for m in manifests() if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return found


def pod() -> dict[str, Any]:
    found: dict[str, Any] = manifest("Deployment")["spec"]["template"]["spec"]
    return found


def container() -> dict[str, Any]:
    (found,) = pod()["containers"]
    return dict(found)


def settings() -> Settings:
    """What a replica makes of its variables."""
    given = {name: value or "" for name, value in dotenv_values(FOLDER / "settings.env").items()}
    return load({"VOXTRAL_API_KEY": "any", **given})


def built(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    made = folder / "k8s"
    shutil.copytree(FOLDER, made, ignore=shutil.ignore_patterns("keys.env"))
    (made / "keys.env").write_text("VOXTRAL_API_KEY=one,other\n")
    text = judged("kubectl", "kustomize", made)
    return list(module("yaml").safe_load_all(text))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_kustomize_makes_fits_the_schemas(version: str, tmp_path: Path) -> None:
    validate = module("kubernetes_validate").validate
    made = built(tmp_path)

    assert {m["kind"] for m in made} >= {m["kind"] for m in manifests()} | {"Secret", "ConfigMap"}
    for each in made:
        validate(each, version, strict=True)


def test_the_names_that_kustomize_makes_are_those_that_the_pods_ask_for(tmp_path: Path) -> None:
    made = built(tmp_path)
    (deployment,) = (m for m in made if m["kind"] == "Deployment")
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    sources = {ref["name"] for source in server["envFrom"] for ref in source.values()}

    assert sources == {m["metadata"]["name"] for m in made if m["kind"] in {"Secret", "ConfigMap"}}
    assert server["image"] != container()["image"]


def test_every_manifest_is_in_the_kustomization_and_the_keys_are_in_no_repository() -> None:
    listed = document(FOLDER / "kustomization.yaml")["resources"]

    assert set(listed) == {path.name for path in FOLDER.glob("*.yaml")} - NO_MANIFESTS
    assert "keys.env" in (FOLDER / ".gitignore").read_text().splitlines()
    assert not any(m["kind"] == "Secret" for m in manifests())


def test_p16_a_pod_has_time_to_leave_the_service_and_to_drain() -> None:
    shell, flag, script = container()["lifecycle"]["preStop"]["exec"]["command"]
    pause, patience = re.fullmatch(
        r"sleep (\d+); exec voxtral-actors drain --pid 1 --within (\d+)", script
    ).groups()  # type: ignore[union-attr]
    needed = float(pause) + float(patience) + settings().drain_timeout_s

    assert (shell, flag) == ("sh", "-c")
    assert pod()["terminationGracePeriodSeconds"] >= needed + 10
    probe = container()["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < float(pause)


def test_the_first_process_of_the_container_passes_signals_on() -> None:
    """`drain --pid 1` speaks to it, and means the server."""
    image = (CONFIG / "docker" / "Dockerfile").read_text("utf-8")
    assert 'ENTRYPOINT ["tini", "--", "voxtral-actors"]\n' in image


def test_the_probes_ask_what_the_server_answers() -> None:
    asked = {
        name: container()[f"{name}Probe"]["httpGet"]
        for name in ("startup", "readiness", "liveness")
    }
    (port,) = container()["ports"]
    start = container()["startupProbe"]

    assert {name: probe["path"] for name, probe in asked.items()} == {
        "startup": "/readyz",
        "readiness": "/readyz",
        "liveness": "/healthz",
    }
    assert {probe["port"] for probe in asked.values()} == {port["name"]}
    assert start["periodSeconds"] * start["failureThreshold"] >= 1800
    deadline = manifest("Deployment")["spec"]["progressDeadlineSeconds"]
    assert deadline > start["periodSeconds"] * start["failureThreshold"]


def test_a_rollout_takes_no_replica_away_before_the_next_is_ready() -> None:
    rolling = manifest("Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxUnavailable": 0, "maxSurge": 1}


def test_a_pod_has_one_gpu_and_no_right_that_it_does_not_need() -> None:
    resources, security = container()["resources"], container()["securityContext"]
    user = pod()["securityContext"]["runAsUser"]

    assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert pod()["securityContext"]["runAsNonRoot"]
    assert not security["allowPrivilegeEscalation"]
    assert security["readOnlyRootFilesystem"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert f"USER {user}:{user}\n" in (CONFIG / "docker" / "Dockerfile").read_text("utf-8")


def test_kubernetes_adds_no_variable_that_the_server_would_refuse() -> None:
    assert pod()["enableServiceLinks"] is False


def test_every_selector_finds_the_pods() -> None:
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]

    assert manifest("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    for name in ("voxtral-actors", "voxtral-actors-replicas"):
        assert manifest("Service", name)["spec"]["selector"] == labels
    headless = manifest("Service", "voxtral-actors-replicas")["spec"]
    assert (headless["clusterIP"], headless["publishNotReadyAddresses"]) == ("None", True)


def test_the_autoscaler_asks_for_what_the_adapter_offers() -> None:
    scaler = manifest("HorizontalPodAutoscaler")["spec"]
    ((metric,), (rule,)) = (
        scaler["metrics"],
        document(FOLDER / "prometheus-adapter.yaml")["rules"]["external"],
    )
    share = float(metric["external"]["target"]["averageValue"]) / settings().max_connections

    assert metric["external"]["metric"]["name"] == rule["name"]["as"]
    assert 0.5 <= share <= 0.8
    assert re.search(r"`voxtral_connections_open`", (ROOT / "docs" / "metrics.md").read_text())
    assert 'job="voxtral"' in rule["metricsQuery"]
    assert scaler["scaleTargetRef"]["name"] == manifest("Deployment")["metadata"]["name"]
    assert "replicas" not in manifest("Deployment")["spec"]


def test_what_is_mounted_is_there_and_the_model_stays_when_a_pod_goes() -> None:
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container()["volumeMounts"]}
    claim = volumes[mounts["/models"]]["persistentVolumeClaim"]["claimName"]

    assert set(mounts.values()) == set(volumes)
    assert manifest("PersistentVolumeClaim", claim)
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"  # noqa: S108 - a mount


def test_the_profile_of_the_pods_exists() -> None:
    serve, option, profile = container()["args"]
    assert (serve, option) == ("serve", "--env-file")
    assert (ROOT / profile).exists()
