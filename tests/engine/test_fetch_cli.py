"""`voxtral-actors fetch` in-process: exit statuses, and what is printed where."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("huggingface_hub", reason="the vllm extra is not installed")

import voxtral_actors.engine
from tests.engine.hub import LIST, Hub, answers
from tests.engine.snapshot_harness import NEEDED, NEEDED_FILES, environment, held
from voxtral_actors.cli import main
from voxtral_actors.engine import fetch_cli, modelfolder
from voxtral_actors.engine.patience import Progress
from voxtral_actors.settings import OWN_PREFIXES


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith((*OWN_PREFIXES, "VLLM_", "HF_", "MAX_CONCURRENT")):
            monkeypatch.delenv(name)


def run(*args: str, **env: str) -> Result:
    return CliRunner().invoke(main, ["fetch", *args], env=env, catch_exceptions=False)


def test_it_needs_no_settings_of_a_server_and_prints_the_folder(hub: Hub, tmp_path: Path) -> None:
    result = run(**environment(hub, tmp_path))

    assert (result.exit_code, result.stdout) == (0, f"{tmp_path}/model\n")
    assert held(tmp_path / "model") == NEEDED_FILES


def test_settings_come_from_the_env_file_too(hub: Hub, tmp_path: Path) -> None:
    lines = [f"{name}={value}" for name, value in environment(hub, tmp_path).items()]
    file = tmp_path / "env"
    file.write_text("\n".join(lines))

    assert run("--env-file", str(file)).exit_code == 0
    assert held(tmp_path / "model") == NEEDED_FILES


def test_what_went_wrong_is_one_line_and_the_status_is_1(hub: Hub, tmp_path: Path) -> None:
    hub.fails(LIST, answers(404))

    result = run(**environment(hub, tmp_path))

    assert (result.exit_code, result.stdout) == (1, "")
    *_, last = result.stderr.splitlines()
    assert last.endswith("(404): check VOXTRAL_MODEL_ID.")


def test_p18_wrong_settings_are_all_printed_and_the_status_is_2(tmp_path: Path) -> None:
    result = run(HF_ENDPOINT="hub", VOXTRAL_MODELDIR="x")

    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.split()[0] for line in result.stderr.splitlines()[1:]] == [
        "HF_ENDPOINT",
        "VOXTRAL_MODELDIR",
    ]


def test_verify_hashes_what_looks_untouched(hub: Hub, tmp_path: Path) -> None:
    env = environment(hub, tmp_path)
    run(**env)
    file = tmp_path / "model" / "params.json"
    status = file.stat()
    file.write_bytes(bytes(status.st_size))
    os.utime(file, ns=(status.st_mtime_ns, status.st_mtime_ns))

    assert run("--verify", **env).exit_code == 0

    assert held(tmp_path / "model") == NEEDED_FILES


def test_local_takes_the_files_as_they_are(hub: Hub, tmp_path: Path) -> None:
    env = environment(hub, tmp_path)
    folder = tmp_path / "model"
    assert run("--local", **env).exit_code == 1

    folder.mkdir()
    for name in NEEDED:
        (folder / name).write_bytes(b"mine")

    assert run("--local", **env).exit_code == run(**env).exit_code == 0
    assert (folder / modelfolder.MANIFEST).exists()
    assert hub.requests == []


def test_ctrl_c_ends_it_with_a_line(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("voxtral_actors.engine.snapshot.fetch", interrupted)

    result = run(**environment(hub, tmp_path))

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Stopped; the next run goes on from here.\n"


def test_without_the_hub_library_it_says_which_extra_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for name in ("snapshot", "fetch_cli"):
        monkeypatch.delitem(sys.modules, f"voxtral_actors.engine.{name}")
        monkeypatch.delattr(voxtral_actors.engine, name)

    result = run()

    assert result.exit_code == 1
    assert "needs huggingface_hub" in result.stderr
    assert "pip install 'voxtral-actors[vllm]'" in result.stderr


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress("checking", "", 0, 0), "Checking"),
        (Progress("checking", "", 2_500_000, 0), "Checking: 2.5 MB"),
        (Progress("downloading", "a.json", 1, 3_000_000), "Loading a.json: 0 % of 3.0 MB"),
        (Progress("downloading", "a", 6 * 10**9, 8 * 10**9), "Loading a: 75 % of 8,000.0 MB"),
        (Progress("waiting", "", 0, 0, "Somebody fetches."), "Somebody fetches."),
    ],
)
def test_progress_in_a_line(progress: Progress, line: str) -> None:
    assert fetch_cli.describe(progress) == line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_that_is_gone_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "20")

    line = fetch_cli._Line()
    line.show(Progress("checking", "", 0, 0))
    line.show(Progress("downloading", "a-long-name.safetensors", 0, 10))
    line.end()

    assert screen.getvalue().split("\r\x1b[K") == ["", "Checking", "Loading a-long-name", ""]


def test_a_log_has_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)

    line = fetch_cli._Line()
    for done in range(100):
        line.show(Progress("downloading", "a", done, 100))
    line.show(Progress("downloading", "b", 100, 100))
    line.end()

    assert log.getvalue().splitlines() == [
        "Loading a: 0 % of 0.0 MB",
        "Loading b: 100 % of 0.0 MB",
    ]
