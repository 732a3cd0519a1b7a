"""Blocks that begin with `# Needs …`: run by a shell, with stand-ins for the machine they need.

A stand-in looks whether the files that it is given are there. Where the program itself is on this
machine, it also reads the command line, and then does nothing: its own parser decides. `/opt` and
`/etc` are folders of the test.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import trio

from tests.deploy.test_docs import ELSEWHERE, PAGES, bash, blocks
from tests.deploy.tools import PATH, ROOT

STAND_IN = """#!/bin/bash
set -eu
for word in "$@"; do
  if [[ $word == *config/* ]]; then [ -e "$word" ]; fi
done
"""
HELP = 'exec {program} "$@" --help > /dev/null'
NO_DAEMON = """
if [[ $1 == run ]]; then
  DOCKER_HOST=unix:///nonexistent {program} "$@" 2>&1 | grep -q "Cannot connect to the Docker"
fi
"""
"""What the client says when it has understood everything; its plugins may not be there."""
THEN = {
    "curl": "",
    "docker": NO_DAEMON,
    "journalctl": HELP,
    "kubectl": HELP,
    "pip": HELP,
    "python3": '[ "$1 $2" = "-m venv" ]; mkdir -p "$3/bin"; cp "$(dirname "$0")/pip" "$3/bin"',
    "ssh": 'shift; exec "$@"',
    "systemctl": HELP,
}
FOUND = [(page, block) for page in PAGES for block in blocks(page) if block.startswith(ELSEWHERE)]


def stand_ins(folder: Path) -> None:
    folder.mkdir()
    for name, then in THEN.items():
        program = shutil.which(name, path=PATH)
        skipped = "{program}" in then and not program
        path = folder / name
        path.write_text(STAND_IN + ("" if skipped else then.replace("{program}", str(program))))
        path.chmod(0o755)


@pytest.mark.parametrize(("page", "block"), FOUND, ids=[text.split("\n")[1] for _, text in FOUND])
async def test_a_block_for_elsewhere_is_taken_by_its_programs(
    page: str, block: str, tmp_path: Path
) -> None:
    here = tmp_path / "checkout"
    shutil.copytree(ROOT / "config", here / "config")
    (here / "server.env").write_text("VOXTRAL_API_KEY=k\n")
    (tmp_path / "etc" / "systemd" / "system").mkdir(parents=True)
    stand_ins(tmp_path / "path")
    script = re.sub(r"(?m)(^|(?<= ))/(opt|etc)/", rf"{tmp_path}/\2/", block)
    known = f"export PATH={tmp_path / 'path'}:$PATH MAX_CONCURRENT_CONNECTIONS=80"
    with trio.fail_after(30):
        await bash(f"{known}\n{script}", here)


def test_there_are_such_blocks() -> None:
    assert FOUND
