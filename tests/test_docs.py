"""Every block of the documents in docs/ is run as it stands, but for the server's port."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import trio

from tests.documents import ROOT, blocks, links
from tests.server.server_process import server_process
from tests.server.wire_client import KEY
from voxtral_actors.client import connect, feed

DEMO = ROOT / "voxtral_actors" / "demo"
WORDS = (DEMO / "sample.txt").read_text(encoding="utf-8").split()
DOCS = ["docs/architecture.md", "docs/client.md", "docs/settings.md", "examples/README.md"]
HERE = "ws://127.0.0.1:8000/ws"


async def run(program: str, folder: Path, port: int) -> str:
    """What a program prints that talks to the server on this port."""
    assert program.count(HERE) == 1
    done: subprocess.CompletedProcess[bytes] = await trio.run_process(
        [sys.executable, "-c", program.replace("127.0.0.1:8000", f"127.0.0.1:{port}")],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "VOXTRAL_API_KEY": KEY},
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


async def test_the_programs_of_the_client_guide_work(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="the embedded engine is not installed")
    (tmp_path / "talk.flac").symlink_to(DEMO / "sample.flac")
    whole, barge_in, patient, errors = blocks("docs/client.md", "python")
    with trio.fail_after(60):
        async with server_process() as server:
            await server.said("engine.ready")
            port = await server.port()
            *deltas, last = (await run(whole, tmp_path, port)).splitlines()
            assert " ".join(deltas).split() == WORDS
            assert last.startswith("Done(")
            assert await run(barge_in, tmp_path, port) == "superseded\n''\n"
            assert (
                await run(patient, tmp_path, port) == "0 s to the server and back\n0 reconnects\n"
            )
            assert await run(errors, tmp_path, port) == "authentication_failed 1008 do not retry\n"


async def test_the_engine_of_the_architecture_guide_works(tmp_path: Path) -> None:
    """It is installed as its pyproject.toml says, but for the installer."""
    [program], [project] = (blocks("docs/architecture.md", kind) for kind in ("python", "toml"))
    [module] = tomllib.loads(project)["tool"]["setuptools"]["py-modules"]
    (tmp_path / f"{module}.py").write_text(program, encoding="utf-8")
    info = tmp_path / "voxtral_metronome-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: voxtral-metronome\nVersion: 1\n")
    points = tomllib.loads(project)["project"]["entry-points"]["voxtral_actors.engines"]
    lines = [f"{name} = {target}" for name, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[voxtral_actors.engines]", *lines]))

    with trio.fail_after(30):
        async with server_process(PYTHONPATH=str(tmp_path), VOXTRAL_ENGINE="metronome") as server:
            await server.said("engine.ready")
            url = f"ws://127.0.0.1:{await server.port()}/ws"
            async with connect(url, api_key=KEY) as session, session.utterance() as utterance:
                assert session.created.engine == "metronome"
                await feed(utterance, [bytes(16_000)] * 7)
                assert await utterance.text() == " tick tick tick"


def test_the_seed_of_the_architecture_guide_can_be_replayed() -> None:
    [command] = blocks("docs/architecture.md", "sh", "Replaying a storm")
    shown = subprocess.run(
        ["make", "--dry-run", *shlex.split(command)[1:]],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    recipe = re.search(r"python (-m tests\.chaos .*)$", shown, re.MULTILINE)
    assert recipe is not None
    played = subprocess.run(
        [sys.executable, *shlex.split(recipe[1])], cwd=ROOT, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert played.returncode == 0, played.stdout[-2000:]


def test_the_commands_that_write_documents_name_tests_and_their_switches() -> None:
    [commands] = blocks("docs/architecture.md", "sh", "Changing a document")
    for command in commands.splitlines():
        switch, make, test, path = shlex.split(command)
        source = (ROOT / path.removeprefix("ARGS=")).read_text(encoding="utf-8")
        assert (make, test) == ("make", "test")
        assert f'environ.get("{switch.removesuffix("=1")}")' in source


@pytest.mark.parametrize("path", DOCS)
def test_links_lead_somewhere(path: str) -> None:
    assert [str(link) for link in links(path) if not link.exists()] == []


def test_no_block_is_left_out() -> None:
    """A new block needs a test here."""
    found = {
        (path, kind): len(blocks(path, kind))
        for path in DOCS
        for kind in ("python", "sh", "toml", "json", "console")
    }
    assert {where: count for where, count in found.items() if count} == {
        ("docs/client.md", "python"): 4,
        ("docs/architecture.md", "python"): 1,
        ("docs/architecture.md", "toml"): 1,
        ("docs/architecture.md", "sh"): 2,
        ("examples/README.md", "sh"): 1,  # run in `test_readme_commands.py`
    }
