"""The commands of README.md and examples/README.md, run as they stand by a shell.

It runs in a folder that holds what they name. Three things are stood in for: what makes an
environment (it is the one that the tests run in; pip itself reads its command line), the port (any
free one), and the microphone (there is none).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.documents import ROOT, blocks
from tests.server.server_process import ServerProcess, server_process

SAID = (ROOT / "voxtral_actors" / "demo" / "sample.txt").read_text("utf-8").strip()
PYTHON3 = """#!/bin/sh
set -eu
[ "$*" = "-m venv venv" ]
mkdir -p venv/bin
cp "$0.d"/* venv/bin
"""
OURS = """#!/bin/sh
[ "$1" != serve ] || echo $$ > server.pid
exec {python} -m voxtral_actors "$@"
"""
PYTHON = """#!/bin/sh
exec {python} "$@"
"""
PIP = """#!/bin/sh
exec {python} -m pip "$@" --help > /dev/null
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the commands are run: the repository's files, and a `python3` on the PATH."""
    here = tmp_path / "checkout"
    here.mkdir()
    for name in ("config", "examples", "voxtral_actors"):
        (here / name).symlink_to(ROOT / name)
    ready = tmp_path / "path" / "python3.d"
    ready.mkdir(parents=True)
    programs = {ready / "voxtral-actors": OURS, ready / "pip": PIP, ready / "python": PYTHON}
    for path, text in {**programs, tmp_path / "path" / "python3": PYTHON3}.items():
        path.write_text(text.format(python=sys.executable))
        path.chmod(0o755)
    without = tmp_path / "without"
    without.mkdir()
    (without / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    return here


async def bash(folder: Path, script: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    search = f"{folder.parent / 'without'}:{ROOT}"
    return await trio.run_process(
        ["/bin/bash", "-uo", "pipefail", "-c", script],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": search, **env},
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


@asynccontextmanager
async def started(folder: Path, script: str) -> AsyncIterator[ServerProcess]:
    """The block that ends in `serve`; the server is told to stop, and the block has to succeed."""
    path = f"{folder.parent / 'path'}:{os.environ['PATH']}"
    unset = "unset VOXTRAL_API_KEY MAX_CONCURRENT_CONNECTIONS"  # as on a new machine
    shell = ["/bin/bash", "-euo", "pipefail", "-c", f"{unset}; cd {folder}\n{script}"]
    async with server_process(*shell, PATH=path, PYTHONPATH=str(ROOT)) as server:
        try:
            await server.said("engine.ready")
            yield server
        finally:
            os.kill(int((folder / "server.pid").read_text()), signal.SIGTERM)
        assert await server.exit_status() == 0


async def test_the_blocks_of_run_a_server_work(folder: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="the embedded engine is not installed")
    start, use = blocks("README.md", "sh", "Run a server")
    [examples] = blocks("examples/README.md", "sh")
    with trio.fail_after(240):  # generous: others may use the machine
        async with started(folder, start) as server:
            assert (folder / "key").stat().st_mode & 0o077 == 0
            url = f"ws://127.0.0.1:{await server.port()}/ws"
            done = await bash(folder, use, VOXTRAL_URL=url)
            shown = await bash(folder, examples, VOXTRAL_URL=url)

    live, fast = done.stdout.decode().splitlines()
    assert live == SAID
    assert json.loads(fast)["text"] == SAID
    assert done.returncode == 2, "there is no microphone"
    assert b"libportaudio2" in done.stderr

    text, *events, user, agent = shown.stdout.decode().splitlines()
    assert text == SAID
    assert [line.partition("(")[0] for line in events] == ["Delta", "Delta", "Delta", "Done"]
    assert (user, agent) == (f"user: {SAID}", "agent: (has finished speaking)")
    assert shown.returncode == 1, "there is no microphone"
    assert shown.stderr.startswith(b"the PortAudio library of the system is missing"), shown.stderr


async def test_the_plan_is_the_one_that_is_printed(folder: Path) -> None:
    (command,), (shown,) = (
        blocks("README.md", kind, "What fits on your GPU") for kind in ("sh", "text")
    )
    prepare = blocks("README.md", "sh", "Run a server")[0].splitlines()[1]
    path = f"{folder.parent / 'path'}:{os.environ['PATH']}"
    done = await bash(folder, f"{prepare}\n{command}", PATH=path)

    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == shown


def test_no_block_is_left_out() -> None:
    """A new block needs a test: here, in `test_readme.py`, or in `deploy/test_websocat.py`."""
    kinds = ("sh", "text", "python", "json", "toml", "console")
    assert {kind: len(blocks("README.md", kind)) for kind in kinds} == {
        "sh": 6,  # of which `make` has two, in `test_commands.py` and `test_demo.py`
        "text": 1,
        "python": 1,
        "json": 0,
        "toml": 0,
        "console": 0,
    }
