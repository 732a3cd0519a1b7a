"""The folder of a model: when it is complete, what is wrong with it, and the patch inside it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

pytest.importorskip("huggingface_hub", reason="the vllm extra is not installed")

from tests.engine.hub import LIST, Hub
from tests.engine.snapshot_harness import (
    FILES,
    HASTY,
    NEEDED,
    NEEDED_FILES,
    TEKKEN,
    WEIGHTS,
    failure,
    fetched,
    held,
    made,
)
from voxtral_actors.engine import modelfolder, tekken
from voxtral_actors.engine.downloading import Part
from voxtral_actors.engine.modelfolder import (
    SnapshotError,
    adopt,
    local_snapshot,
)
from voxtral_actors.engine.snapshot import fetch
from voxtral_actors.settings import Settings


def test_a_disk_with_too_little_room_is_refused_before_the_download(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(Path.cwd())._replace(free=64 * 2**20 + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    error = failure(settings)

    assert error.reason == "disk_full"
    assert [what for what, _, _ in hub.requests] == [LIST]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)  # noqa: S607


def test_a_real_disk_that_fills_up_meanwhile_is_said_to_be_full(
    hub: Hub, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(Path.cwd())._replace(free=2**40)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    error = failure(made(hub, tmp_path, VOXTRAL_MODEL_DIR=str(small_disk)))

    assert error.reason == "disk_full"
    assert held(small_disk).keys() == NEEDED - {WEIGHTS}


def test_a_write_that_finds_no_room_is_gone_on_with_later(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a small disk: the write itself says what the system would."""
    add = Part.add

    def add_until_full(part: Part, piece: bytes) -> None:
        if part.size > 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(part, piece)

    with monkeypatch.context() as context:
        context.setattr(Part, "add", add_until_full)
        error = failure(settings)

    assert error.reason == "disk_full"
    assert "No space left on device" in str(error)
    assert held(fetched(settings)) == NEEDED_FILES
    assert hub.ranges(WEIGHTS)[1].startswith("bytes=")


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder nobody can write to")
def test_a_folder_that_cannot_be_written_is_said_to_be_one(hub: Hub, tmp_path: Path) -> None:
    """In /sys nobody makes a folder, not even root, whom permissions do not stop."""
    error = failure(made(hub, tmp_path, VOXTRAL_MODEL_DIR="/sys/kernel/voxtral"))

    assert error.reason == "read_only"
    assert "/sys/kernel/voxtral" in str(error)


def test_a_folder_that_is_a_file_is_said_to_be_unusable(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("no folder")

    with pytest.raises(SnapshotError) as caught:
        fetched(made(hub, tmp_path))

    assert caught.value.reason == "unusable"


def test_a_complete_folder_is_used_without_a_write(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a read-only mount: every function that changes a folder raises."""
    folder = fetched(settings)
    tekken.set_delay(folder, 400)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, os.strerror(30))

    for name in ("replace", "unlink", "utime"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr("voxtral_actors.engine.atomic.locked", refuse)

    assert fetched(settings) == folder
    assert tekken.set_delay(folder, 400) == 5


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_a_changed_file_is_noticed_and_fetched_again(
    hub: Hub, settings: Settings, name: str
) -> None:
    folder = fetched(settings)
    hub.requests.clear()
    changed = bytearray(FILES[name])
    changed[-1] ^= 1
    (folder / name).write_bytes(changed)

    assert local_snapshot(settings) is None
    assert held(fetched(settings)) == NEEDED_FILES
    assert {what for what, _, _ in hub.requests} == {LIST, name}


def test_verify_sees_what_size_and_time_do_not_show(hub: Hub, settings: Settings) -> None:
    folder = fetched(settings)
    status = (folder / WEIGHTS).stat()
    (folder / WEIGHTS).write_bytes(bytes(status.st_size))
    os.utime(folder / WEIGHTS, ns=(status.st_mtime_ns, status.st_mtime_ns))

    assert fetched(settings) == folder
    assert held(folder) != NEEDED_FILES

    assert held(fetch(settings, full=True, patience=HASTY)) == NEEDED_FILES


def test_a_copied_folder_is_complete_although_its_times_are_others(
    hub: Hub, settings: Settings, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(fetched(settings), copy, copy_function=shutil.copyfile)
    moved = attrs.evolve(settings, model_dir=str(copy), hf_endpoint="http://127.0.0.1:1")
    hashed: list[int] = []

    assert local_snapshot(moved, tick=hashed.append) == copy
    assert sum(hashed) == sum(map(len, NEEDED_FILES.values()))

    hashed.clear()
    assert local_snapshot(moved, tick=hashed.append) == copy
    assert hashed == []


def test_files_that_were_there_before_are_not_fetched(hub: Hub, settings: Settings) -> None:
    folder = Path(settings.model_dir)
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(FILES[WEIGHTS])

    assert held(fetched(settings)) == NEEDED_FILES
    assert hub.ranges(WEIGHTS) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1}', '{"version": 2}'])
def test_a_manifest_that_makes_no_sense_is_none(settings: Settings, text: str) -> None:
    folder = fetched(settings)
    (folder / modelfolder.MANIFEST).write_text(text)

    assert local_snapshot(settings) is None
    assert fetched(settings) == local_snapshot(settings)


def test_the_folder_of_another_model_is_not_this_one(settings: Settings) -> None:
    fetched(settings)

    assert local_snapshot(attrs.evolve(settings, model_id="mistralai/Other")) is None


# --- The delay patch.


def test_p19_a_patched_tokenizer_is_no_damage(hub: Hub, settings: Settings) -> None:
    folder = fetched(settings)
    tekken.set_delay(folder, 2400)
    hub.requests.clear()

    assert fetch(settings, full=True, patience=HASTY) == folder
    assert hub.requests == []

    (folder / WEIGHTS).unlink()
    fetched(settings)

    assert hub.ranges("tekken.json") == []
    assert json.loads((folder / "tekken.json").read_bytes())["audio"] == {
        "frame_rate": 12.5,
        "transcription_delay_ms": 2400,
    }


def test_a_new_tokenizer_replaces_the_patched_one_and_its_original(
    hub: Hub, settings: Settings
) -> None:
    folder = fetched(settings)
    tekken.set_delay(folder, 2400)
    hub.files["tekken.json"] = TEKKEN.replace(b"480", b"560")
    (folder / modelfolder.MANIFEST).unlink()

    fetched(settings)

    assert (folder / "tekken.json").read_bytes() == hub.files["tekken.json"]
    assert not (folder / tekken.ORIGINAL).exists()


def test_p19_a_new_tokenizer_beside_the_old_original_is_kept(hub: Hub, settings: Settings) -> None:
    """The state that a kill between the two steps leaves."""
    folder = fetched(settings)
    tekken.set_delay(folder, 2400)
    hub.files["tekken.json"] = TEKKEN.replace(b"480", b"560")
    (folder / "tekken.json").write_bytes(hub.files["tekken.json"])
    (folder / modelfolder.MANIFEST).unlink()
    hub.requests.clear()

    fetched(settings)

    assert hub.ranges("tekken.json") == []
    assert (folder / "tekken.json").read_bytes() == hub.files["tekken.json"]
    assert not (folder / tekken.ORIGINAL).exists()


# --- A model of one's own.


def test_adopted_files_are_complete_without_a_hub(hub: Hub, settings: Settings) -> None:
    folder = Path(settings.model_dir)
    folder.mkdir()
    for name, data in NEEDED_FILES.items():
        (folder / name).write_bytes(data)

    assert adopt(settings) == folder == fetched(settings)
    tekken.set_delay(folder, 80)
    assert local_snapshot(settings, full=True) == folder
    assert hub.requests == []


def test_a_folder_without_a_model_is_not_adopted(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError) as caught:
        adopt(settings)
    assert caught.value.reason == "unusable"

    (tmp_path / "model").mkdir()
    with pytest.raises(SnapshotError) as caught:
        adopt(settings)
    assert caught.value.reason == "not_this_model"
