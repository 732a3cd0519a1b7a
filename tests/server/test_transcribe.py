"""`voxtral-actors transcribe` against `voxtral-actors serve`: two processes and real speech."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import pytest
import trio

from tests.engine.test_sphinx import LIBRIVOX, _common
from tests.server.server_process import ServerProcess, server_process
from tests.server.wire_client import KEY
from tests.server.wire_helpers import HOST

DEMO = files("voxtral_actors.demo")


async def transcribed(server: ServerProcess, paths: Iterable[Path]) -> list[str]:
    """What the command prints, a line a file; it must succeed."""
    await server.said("engine.ready")
    url = f"ws://{HOST}:{await server.port()}/ws"
    done: subprocess.CompletedProcess[bytes] = await trio.run_process(
        [sys.executable, "-m", "voxtral_actors", "transcribe", "--fast", "--url", url, *paths],
        env={"VOXTRAL_API_KEY": KEY},
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


async def test_the_sample_is_printed_word_for_word() -> None:
    expected = DEMO.joinpath("sample.txt").read_text("utf-8").split()
    with trio.fail_after(120):
        async with server_process() as server:
            (line,) = await transcribed(server, [Path(str(DEMO.joinpath("sample.flac")))])
    assert line.split() == expected


@pytest.mark.skipif(not LIBRIVOX.exists(), reason="Debian's pocketsphinx-testdata is not installed")
async def test_most_words_of_read_speech_are_printed() -> None:
    said: dict[Path, list[str]] = {}
    for line in (LIBRIVOX / "transcription").read_text("utf-8").splitlines():
        match = re.fullmatch(r"<s> (.*) </s> \((.*)\)", line)
        assert match, line
        said[LIBRIVOX / f"{match[2]}.wav"] = match[1].split()
    with trio.fail_after(240):  # it takes 20 s on two idle cores
        async with server_process() as server:
            lines = await transcribed(server, said)

    hits = sum(
        _common(words, line.split()) for words, line in zip(said.values(), lines, strict=True)
    )
    total = sum(map(len, said.values()))
    assert hits / total >= 0.7, f"{hits} of {total} words"
