"""`voxtral-actors demo`, as `make demo` runs it: the words, and every command that it prints."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import trio

from tests.documents import ROOT, blocks

SAID = (ROOT / "voxtral_actors" / "demo" / "sample.txt").read_text("utf-8").strip()
COMMAND = [sys.executable, "-m", "voxtral_actors", "demo"]
LIMIT_S = 180  # generous: others may use the machine
BARE = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}


async def bash(script: str) -> str:
    """What the commands print; all of them must succeed."""
    done: subprocess.CompletedProcess[bytes] = await trio.run_process(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=BARE,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stderr.decode()}"
    return done.stdout.decode()


async def test_once_prints_the_words_and_exits_with_0() -> None:
    pytest.importorskip("pocketsphinx", reason="the embedded engine is not installed")
    with trio.fail_after(LIMIT_S):
        done: subprocess.CompletedProcess[bytes] = await trio.run_process(
            [*COMMAND, "--once"], cwd=ROOT, env=BARE, capture_stdout=True, capture_stderr=True
        )
    assert done.stdout.decode().strip() == SAID
    assert "The transcript is right." in done.stderr.decode()


async def test_what_it_prints_afterwards_can_be_pasted() -> None:
    pytest.importorskip("pocketsphinx", reason="the embedded engine is not installed")
    printed = ""
    with trio.fail_after(LIMIT_S):
        process = await trio.lowlevel.open_process(
            COMMAND, cwd=ROOT, env=BARE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert process.stdout is not None
            while not re.search(r"curl .*\n", printed):
                data = await process.stdout.receive_some()
                assert data, printed
                printed += data.decode()
            page, *commands = re.findall(r"^  (.+)$", printed, re.MULTILINE)
            assert len(commands) == 4
            transcript, *shown = (await bash("\n".join(commands))).splitlines()
            assert transcript == SAID
            assert shown[0].startswith("server ready: engine sphinx")
            assert shown[-1] == '{"status":"ready"}'
            assert "<title>" in await bash(f"curl -s '{page}'")
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
        finally:
            process.kill()
            with trio.move_on_after(5, shield=True):
                await process.wait()


def test_the_sample_can_be_made_again(tmp_path: Path) -> None:
    """By the commands of its README; another flite or voice may say it in other samples."""
    if not shutil.which("flite"):
        pytest.skip("flite is not installed: Debian's flite")
    [script] = blocks("voxtral_actors/demo/README.md", "sh")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["/bin/bash", "-euc", script], cwd=tmp_path, env={**BARE, "PATH": path}, check=True
    )
    made, rate = soundfile.read(tmp_path / "sample.flac", dtype="int16")
    ours, our_rate = soundfile.read(ROOT / "voxtral_actors" / "demo" / "sample.flac", dtype="int16")
    assert rate == our_rate
    assert abs(len(made) - len(ours)) < 0.2 * rate
