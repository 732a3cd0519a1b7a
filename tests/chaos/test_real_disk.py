"""P19 with a disk that is really full, may really not be written to, or takes no larger file.

The command is a real process; disks are small ones in memory, where this process may mount them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub", reason="the vllm extra is not installed")

from tests.engine.hub import Hub, running
from tests.engine.snapshot_harness import (
    FILES,
    LARGE,
    NEEDED_FILES,
    TEKKEN,
    WEIGHTS,
    environment,
    held,
)
from voxtral_actors.engine.tekken import ORIGINAL

SET_DELAY = """
import sys
from pathlib import Path
from voxtral_actors.engine.tekken import TekkenError, set_delay
try:
    print(set_delay(Path(sys.argv[1]), 800))
except TekkenError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running(dict(FILES), LARGE) as hub:
        yield hub


def run(command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        command,
        env=inherited | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def fetch(hub: Hub, folder: Path, *runner: str) -> subprocess.CompletedProcess[str]:
    env = environment(hub, folder) | {"VOXTRAL_MODEL_DIR": str(folder)}
    return run([*runner, sys.executable, "-m", "voxtral_actors", "fetch"], **env)


@contextmanager
def disk(place: Path, options: str) -> Iterator[Path]:
    """A disk in memory; skips where this process may not mount one."""
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)  # noqa: S607


def test_p19_a_download_that_may_not_grow_is_one_line_and_goes_on_later(
    hub: Hub, tmp_path: Path
) -> None:
    folder = tmp_path / "model"

    done = fetch(hub, folder, "prlimit", "--fsize=100000")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr.splitlines()[-1]
    assert WEIGHTS not in held(folder)

    again = fetch(hub, folder)
    assert (again.returncode, again.stdout) == (0, f"{folder}\n")
    assert held(folder) == NEEDED_FILES
    assert hub.ranges(WEIGHTS)[-1].startswith("bytes=")


def test_p19_a_complete_folder_on_a_disk_that_is_read_only_is_used(
    hub: Hub, tmp_path: Path
) -> None:
    with disk(tmp_path / "disk", "size=80m") as place:
        assert fetch(hub, place).returncode == 0
        remount = ["mount", "-o", "remount,ro", str(place)]
        subprocess.run(remount, check=True)
        asked = len(hub.requests)

        done = fetch(hub, place)
        assert (done.returncode, done.stdout) == (0, f"{place}\n")
        assert len(hub.requests) == asked


def test_p19_an_empty_folder_on_a_disk_that_is_read_only_is_one_line(
    hub: Hub, tmp_path: Path
) -> None:
    with disk(tmp_path / "disk", "size=2m,ro") as place:
        done = fetch(hub, place)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "Read-only" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("pages", range(4))
def test_p19_a_full_disk_leaves_the_tokenizer_as_it_was(pages: int, tmp_path: Path) -> None:
    """So many pages are left: for the lock, for a part of the copy, for the copy but not the new
    file. In each case the file is the old one and, with room, becomes the new one."""
    tekken = TEKKEN[:-1] + b"," + b" " * 8000 + b'"padding": 1}'
    with disk(tmp_path / "disk", "size=64k") as place:
        (place / "tekken.json").write_bytes(tekken)
        ballast = place / "ballast"
        with ballast.open("wb", buffering=0) as file:
            free = os.statvfs(place).f_bavail - pages
            file.write(bytes(free * os.statvfs(place).f_frsize))
        assert os.statvfs(place).f_bavail == pages

        done = run([sys.executable, "-c", SET_DELAY, str(place)])
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert (place / "tekken.json").read_bytes() == tekken

        ballast.unlink()
        assert run([sys.executable, "-c", SET_DELAY, str(place)]).stdout == "10\n"
        assert b'"transcription_delay_ms": 800' in (place / "tekken.json").read_bytes()
        assert (place / ORIGINAL).read_bytes() == tekken
