"""The image and the stack of Compose: linted, checked against the schema, and at one with the code.

Nothing is built: that takes a registry and a GPU.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from dotenv import dotenv_values

from tests.deploy.tools import CONFIG, ROOT, document, judged
from voxtral_actors.settings import Settings, load

FOLDER = CONFIG / "docker"
DOCKERFILE = FOLDER / "Dockerfile"
COMPOSE = FOLDER / "compose.yaml"
TEXT = DOCKERFILE.read_text("utf-8")
GIVEN = {"VOXTRAL_API_KEY": "any", "MAX_CONCURRENT_CONNECTIONS": "1"}


def image_variables() -> dict[str, str]:
    (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", TEXT, re.MULTILINE)
    return dict(word.split("=", 1) for word in block.replace("\\\n", " ").split())


def server_of_the_stack() -> dict[str, Any]:
    found: dict[str, Any] = document(COMPOSE)["services"]["voxtral"]
    return found


def settings(**variables: str) -> Settings:
    """What the server in the image makes of variables; a test may lack the engine's library."""
    return load({**GIVEN, **image_variables(), **variables, "VOXTRAL_ENGINE": "sphinx"})


def test_hadolint_finds_nothing() -> None:
    assert judged("hadolint", "--failure-threshold", "style", DOCKERFILE) == ""


def test_the_vllm_of_the_image_is_the_one_that_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (wanted,) = (
        name.partition("==")[2]
        for name in project["optional-dependencies"]["vllm"]
        if name.startswith("vllm==")
    )

    assert f"FROM vllm/vllm-openai:v{wanted}\n" in TEXT
    assert f'version("vllm"))\')" = {wanted} ' in TEXT


def test_everything_that_goes_into_the_image_exists_and_is_let_into_the_build() -> None:
    let_in = re.findall(r"^!(\S+)$", (FOLDER / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    copied = [
        name for line in re.findall(r"^COPY (.+) \S+$", TEXT, re.MULTILINE) for name in line.split()
    ]

    assert copied
    for name in copied:
        assert list(ROOT.glob(name)), name
    assert set(copied) == set(let_in)


def test_the_image_runs_as_nobody_special_with_settings_that_are_right() -> None:
    made = settings()
    user = re.findall(r"^USER (\S+)$", TEXT, re.MULTILINE)

    assert user == ["10001:10001"]
    assert (made.host, made.port) == ("0.0.0.0", 8000)  # noqa: S104 - inside of a container
    assert re.findall(r"^EXPOSE (\d+)$", TEXT, re.MULTILINE) == ["8000"]
    assert "http://127.0.0.1:8000/readyz" in TEXT
    assert made.model_dir.startswith("/models/")


def test_the_stack_fits_the_schema_of_compose() -> None:
    judged("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_p16_the_stack_gives_the_server_time_to_drain() -> None:
    server = server_of_the_stack()
    drain = settings(VOXTRAL_DRAIN_TIMEOUT_S=server["environment"]["VOXTRAL_DRAIN_TIMEOUT_S"])

    assert float(server["stop_grace_period"].removesuffix("s")) >= drain.drain_timeout_s + 10


def test_the_stack_sets_only_what_the_server_knows() -> None:
    plain = {"VOXTRAL_API_KEY": "any", "MAX_CONCURRENT_CONNECTIONS": "50", "HF_TOKEN": ""}
    variables = {
        name: plain.get(name, value) for name, value in server_of_the_stack()["environment"].items()
    }

    assert not any("$" in value for value in variables.values())
    assert settings(**variables).max_connections == 50


@pytest.mark.parametrize("name", ["voxtral", "prometheus", "grafana"])
def test_what_the_stack_mounts_exists_and_nothing_is_open_to_the_world(name: str) -> None:
    stack = document(COMPOSE)
    service = stack["services"][name]
    for volume in service["volumes"]:
        source = volume.split(":")[0]
        assert source in stack["volumes"] or (FOLDER / source).is_dir(), source
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_profile_of_the_stack_is_in_the_image() -> None:
    *_, profile = server_of_the_stack()["command"]

    default = re.sub(r"\$\{GPU:-(\w+)\}", r"\1", profile)
    assert (ROOT / default).exists()
    assert "COPY config/*.env" in TEXT
    settings(**{name: value or "" for name, value in dotenv_values(ROOT / default).items()})
