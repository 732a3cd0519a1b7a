"""The command line, run in-process: exit statuses, what is printed where, and no extra needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import click
import pytest
from click.testing import CliRunner, Result

import voxtral_actors
from voxtral_actors import logs
from voxtral_actors.cli import main
from voxtral_actors.lazy import LazyGroup, Target
from voxtral_actors.settings import OWN_PREFIXES, Settings

REQUIRED = {"VOXTRAL_API_KEY": "open-sesame", "MAX_CONCURRENT_CONNECTIONS": "7"}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith((*OWN_PREFIXES, "VLLM_", "HF_TOKEN", "MAX_CONCURRENT")):
            monkeypatch.delenv(name)


def run(*args: str, **env: str) -> Result:
    return CliRunner().invoke(main, args, env=env, catch_exceptions=False)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Settings]]:
    """Stands in for the server: takes the settings and says that it ran well."""
    calls: list[Settings] = []
    app = ModuleType("voxtral_actors.server.app")

    def serve(settings: Settings) -> int:
        calls.append(settings)
        return 0

    vars(app)["main"] = serve
    monkeypatch.setattr("voxtral_actors.server.app", app, raising=False)
    with (
        patch.dict(sys.modules, {"voxtral_actors.server.app": app}),
        patch.object(logs, "configure"),
    ):
        yield calls


def test_the_version_is_the_packages() -> None:
    assert run("--version").output == f"voxtral-actors, version {voxtral_actors.__version__}\n"


def test_the_help_lists_every_command_with_a_line() -> None:
    listed = run("--help").output.partition("Commands:")[2].splitlines()

    names = [line.split()[0] for line in listed if line]
    assert names == [
        "check-config",
        "demo",
        "drain",
        "fetch",
        "listen",
        "plan",
        "serve",
        "top",
        "transcribe",
    ]
    assert all(len(line.split()) > 2 for line in listed if line)


@pytest.mark.parametrize("command", ["serve", "check-config", "demo", "drain", "fetch"])
def test_each_help_has_an_example(command: str) -> None:
    assert f"voxtral-actors {command}" in run(command, "--help").output.partition("Example")[2]


def test_serve_says_in_its_help_what_is_required() -> None:
    text = run("serve", "--help").output

    assert all(name in text for name in REQUIRED)


def test_check_config_prints_a_table_of_all_settings() -> None:
    result = run("check-config", **REQUIRED, WS_IDLE_TIMEOUT_S="20")

    rows = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    assert (result.exit_code, result.stderr) == (0, "")
    assert ["MAX_CONCURRENT_CONNECTIONS", "7"] in rows
    assert ["WS_IDLE_TIMEOUT_S", "20"] in rows
    assert ["HF_TOKEN", "(unset)"] in rows


def test_the_values_of_check_config_stand_in_one_column() -> None:
    lines = run("check-config", **REQUIRED).stdout.splitlines()

    assert len({line.rindex("  ") for line in lines}) == 1


def test_p7_check_config_masks_secrets() -> None:
    result = run("check-config", "--explain", **REQUIRED, HF_TOKEN="hugged-face")

    assert "********" in result.output
    assert "open-sesame" not in result.output
    assert "hugged-face" not in result.output


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_p18_wrong_settings_are_all_printed_and_the_status_is_2(
    command: str, served: list[Settings]
) -> None:
    result = run(command, VOXTRAL_PORT="http", WS_IDLE_TIMEOUT="3", VOXTRAL_API_KEY="open-sesame,")

    assert result.exit_code == 2
    assert result.stdout == ""
    heading, *faults = result.stderr.splitlines()
    assert heading == "4 settings are wrong:"
    assert [line.split()[0] for line in faults] == [
        "VOXTRAL_API_KEY",
        "MAX_CONCURRENT_CONNECTIONS",
        "VOXTRAL_PORT",
        "WS_IDLE_TIMEOUT",
    ]
    assert "open-sesame" not in result.output
    assert served == []


def test_serve_hands_the_settings_to_the_server(served: list[Settings]) -> None:
    assert run("serve", **REQUIRED).exit_code == 0

    (settings,) = served
    assert settings.max_connections == 7
    assert settings.api_keys[0].matches("open-sesame")


def test_the_environment_wins_over_the_env_file(tmp_path: Path, served: list[Settings]) -> None:
    file = tmp_path / "env"
    file.write_text(
        "# a comment\nexport VOXTRAL_API_KEY='file $key'\nMAX_CONCURRENT_CONNECTIONS=3\n\n"
        "VOXTRAL_PORT=9000\nUNRELATED=x\n"
    )

    assert run("serve", "--env-file", str(file), MAX_CONCURRENT_CONNECTIONS="7").exit_code == 0

    (settings,) = served
    assert (settings.max_connections, settings.port) == (7, 9000)
    assert settings.api_keys[0].matches("file $key")


def test_p18_faults_of_the_env_file_come_with_those_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("VOXTRAL_API_KEY=k\nopen-sesame\nWS_IDLE=3\nVOXTRAL_PORT='80\n")

    result = run("check-config", "--env-file", str(file))

    assert result.exit_code == 2
    assert [line.strip().split(" is ")[0] for line in result.stderr.splitlines()[1:]] == [
        f"{file}, line 2",
        f"{file}, line 4",
        "MAX_CONCURRENT_CONNECTIONS",
        "WS_IDLE",
    ]
    assert "open-sesame" not in result.output


def test_p18_an_env_file_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(b"\xff\xfe\x00")

    result = run("check-config", "--env-file", str(file), **REQUIRED)

    assert result.exit_code == 2
    assert result.stderr.startswith("A setting is wrong:\n  ")
    assert "cannot be read as text" in result.stderr


def lazy(attribute: str) -> LazyGroup:
    return LazyGroup("tool", lazy={"late": Target(attribute, "client", "Come late.")})


def test_a_lazy_command_is_not_imported_for_the_help() -> None:
    result = CliRunner().invoke(lazy("nowhere.at.all:command"), ["--help"])

    assert result.exit_code == 0
    assert "late  Come late." in result.output


def test_a_lazy_command_without_its_library_says_which_extra_brings_it() -> None:
    result = CliRunner().invoke(lazy("soundless.wave:command"), ["late", "--help"])

    assert result.exit_code == 1
    assert "needs soundless" in result.stderr
    assert "pip install 'voxtral-actors[client]'" in result.stderr


def test_a_fault_of_this_package_is_not_blamed_on_the_installation() -> None:
    with pytest.raises(ModuleNotFoundError):
        CliRunner().invoke(lazy("voxtral_actors.nowhere:command"), ["late"], catch_exceptions=False)


def test_a_lazy_command_is_the_real_one_once_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    @click.option("--loud", is_flag=True)
    def real(*, loud: bool) -> None:
        """The real help."""
        click.echo("LATE" if loud else "late")

    module = ModuleType("late_module")
    vars(module)["command"] = real
    monkeypatch.setitem(sys.modules, "late_module", module)

    group = lazy("late_module:command")
    assert "The real help." in CliRunner().invoke(group, ["late", "--help"]).output
    assert CliRunner().invoke(group, ["late", "--loud"]).output == "LATE\n"
