"""Fetching a model from a stand-in for the hub that does everything wrong, one thing at a time.

Real sockets, threads and processes, so time is real: timeouts are short, and what is waited for is
an event or a limit of some seconds. A folder is judged by its bytes, not by what `fetch` says.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the vllm extra is not installed")

from tests.engine import hub as standin  # noqa: E402 - after the check
from tests.engine.hub import LIST, MODEL, Hub, answers, drips, sends, until  # noqa: E402
from voxtral_actors.engine import modelfolder, tekken  # noqa: E402
from voxtral_actors.engine.downloading import Part  # noqa: E402
from voxtral_actors.engine.modelfolder import (  # noqa: E402
    Manifest,
    SnapshotError,
    adopt,
    choose,
    local_snapshot,
)
from voxtral_actors.engine.patience import Progress  # noqa: E402
from voxtral_actors.engine.snapshot import FetchCancelled, Patience, fetch, ready  # noqa: E402
from voxtral_actors.settings import Settings, load  # noqa: E402

WEIGHTS = "consolidated.safetensors"
TEKKEN = json.dumps(
    {"vocab": [], "audio": {"frame_rate": 12.5, "transcription_delay_ms": 480}}
).encode()
FILES = {
    "README.md": b"# Not needed",
    "params.json": b'{"dim": 8}',
    "config.json": b"{}",
    "tekken.json": TEKKEN,
    WEIGHTS: random.Random(1).randbytes(300_000),
    "model.safetensors": b"the same weights in another format",
}
LARGE = {WEIGHTS, "tekken.json", "model.safetensors"}
NEEDED = {"params.json", "config.json", "tekken.json", WEIGHTS}
HASTY = Patience(timeout_s=0.3, attempts=3, first_pause_s=0.01, max_pause_s=2, lock_s=1)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with standin.running(dict(FILES), LARGE) as hub:
        yield hub


@pytest.fixture(scope="module", autouse=True)
def _no_connection_left() -> Iterator[None]:
    yield
    huggingface_hub.close_session()


@pytest.fixture
def settings(hub: Hub, tmp_path: Path) -> Settings:
    return made(hub, tmp_path)


def made(hub: Hub, tmp_path: Path, **more: str) -> Settings:
    return load(environment(hub, tmp_path) | more, serving=False)


def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.address,
        "VOXTRAL_MODEL_ID": MODEL,
        "VOXTRAL_MODEL_DIR": str(tmp_path / "model"),
    }


def fetched(settings: Settings) -> Path:
    return fetch(settings, patience=HASTY)


def held(folder: Path) -> dict[str, bytes]:
    """The files of the folder that are no business of the fetcher alone."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


def hidden(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(".")}


def failure(settings: Settings) -> SnapshotError:
    """The error of a fetch that must fail, on one line and with no manifest left."""
    with pytest.raises(SnapshotError) as caught:
        fetched(settings)
    assert "\n" not in str(caught.value)
    assert not (Path(settings.model_dir) / modelfolder.MANIFEST).exists()
    return caught.value


NEEDED_FILES = {name: FILES[name] for name in NEEDED}


def test_only_the_needed_files_come_and_the_manifest_says_which(
    hub: Hub, settings: Settings
) -> None:
    folder = fetched(settings)

    assert held(folder) == NEEDED_FILES
    assert hidden(folder) == {modelfolder.MANIFEST, modelfolder.LOCK}
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert {file.name for file, _ in manifest.files} == NEEDED


def test_a_complete_folder_needs_no_network(hub: Hub, settings: Settings) -> None:
    fetched(settings)
    hub.requests.clear()
    nowhere = attrs.evolve(settings, hf_endpoint="http://127.0.0.1:1")

    assert fetched(nowhere) == fetch(nowhere, full=True, patience=HASTY)
    assert hub.requests == []


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(hub: Hub, tmp_path: Path) -> None:
    fetched(made(hub, tmp_path, HF_TOKEN="hf_secret"))

    tokens = {what: token for what, _, token in hub.requests}
    assert tokens[LIST] == tokens["params.json"] == "hf_secret"
    assert tokens[WEIGHTS] is None


def test_progress_ends_at_all_bytes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxtral_actors.limits.HUB_REPORT_S", 0.0)
    seen: list[Progress] = []

    fetch(settings, progress=seen.append, patience=HASTY)

    loading = [report for report in seen if report.doing == "downloading"]
    total = sum(len(FILES[name]) for name in NEEDED)
    assert (loading[-1].done, loading[-1].total, loading[-1].file) == (total, total, WEIGHTS)
    assert [report.done for report in loading] == sorted(report.done for report in loading)


@pytest.mark.parametrize(
    ("load_format", "weights"),
    [
        ("mistral", {WEIGHTS}),
        ("auto", {WEIGHTS}),
        ("safetensors", {"model.safetensors"}),
        ("dummy", set()),
    ],
)
def test_the_load_format_decides_on_the_weights(
    hub: Hub, tmp_path: Path, load_format: str, weights: set[str]
) -> None:
    folder = fetched(made(hub, tmp_path, VLLM_LOAD_FORMAT=load_format))

    assert held(folder).keys() == {"params.json", "config.json", "tekken.json"} | weights


def test_another_load_format_takes_the_weights_of_the_first_one_away(
    hub: Hub, tmp_path: Path
) -> None:
    fetched(made(hub, tmp_path, VLLM_LOAD_FORMAT="auto"))
    hub.files["consolidated-2.safetensors"] = hub.files.pop(WEIGHTS)
    (tmp_path / "model" / WEIGHTS).write_bytes(b"damaged")

    folder = fetched(made(hub, tmp_path, VLLM_LOAD_FORMAT="auto"))

    assert WEIGHTS not in held(folder)
    assert held(folder)["consolidated-2.safetensors"] == FILES[WEIGHTS]


def test_weights_that_are_not_the_models_are_not_loaded_with_it(settings: Settings) -> None:
    folder = Path(settings.model_dir)
    folder.mkdir()
    (folder / "consolidated-mine.safetensors").write_bytes(b"precious")

    error = failure(settings)

    assert error.reason == "not_this_model"
    assert "consolidated-mine.safetensors" in str(error)
    assert held(folder) == {"consolidated-mine.safetensors": b"precious"}


@pytest.mark.parametrize("missing", ["params.json", "tekken.json", WEIGHTS])
def test_a_repository_without_a_needed_file_is_another_model(
    hub: Hub, settings: Settings, missing: str
) -> None:
    del hub.files[missing]

    assert failure(settings).reason == "not_this_model"


def test_names_from_the_hub_cannot_leave_the_folder(settings: Settings) -> None:
    names = [
        *NEEDED,
        "../consolidated.safetensors",
        "a/consolidated.safetensors",
        "..\\tekken.json",
    ]

    assert set(choose(names, settings)) == NEEDED


# --- Faults of the hub and the network.


def test_a_truncated_body_is_gone_on_with_where_it_ended(hub: Hub, settings: Settings) -> None:
    hub.fails(WEIGHTS, standin.truncates(100_000), standin.truncates(50_000))

    assert held(fetched(settings)) == NEEDED_FILES
    assert hub.ranges(WEIGHTS) == ["", "bytes=100000-", "bytes=150000-"]
    assert hub.sent[WEIGHTS] == len(FILES[WEIGHTS])


def test_a_server_that_ignores_the_range_is_started_over_with(hub: Hub, settings: Settings) -> None:
    hub.fails(WEIGHTS, standin.truncates(100_000), sends(FILES[WEIGHTS]))

    assert held(fetched(settings)) == NEEDED_FILES


def test_a_range_that_the_hub_refuses_is_started_over_with(hub: Hub, settings: Settings) -> None:
    hub.fails(WEIGHTS, standin.truncates(100_000), answers(416))

    assert held(fetched(settings)) == NEEDED_FILES
    assert hub.ranges(WEIGHTS) == ["", "bytes=100000-", ""]


def test_a_stall_in_a_file_is_gone_on_with(hub: Hub, settings: Settings) -> None:
    hub.fails(WEIGHTS, standin.stalls(100_000))

    assert held(fetched(settings)) == NEEDED_FILES
    assert hub.sent[WEIGHTS] == len(FILES[WEIGHTS])


@pytest.mark.parametrize("where", [LIST, "params.json", WEIGHTS])
def test_a_hub_that_says_nothing_is_given_up_after_some_attempts(
    hub: Hub, settings: Settings, where: str
) -> None:
    hub.fails(where, *[standin.stalls(0)] * 5)

    error = failure(settings)

    assert error.reason == "stalled"
    assert "sent nothing for 0.3 s" in str(error)
    assert len(hub.ranges(where)) == HASTY.attempts


@pytest.mark.parametrize(
    ("where", "fault", "reason", "says"),
    [
        (LIST, answers(401), "refused", "set HF_TOKEN"),
        (WEIGHTS, answers(401, X_Error_Code="GatedRepo"), "refused", "accept its terms"),
        (WEIGHTS, answers(403, X_Error_Code="GatedRepo"), "refused", "accept its terms"),
        (LIST, answers(403), "refused", "must allow it"),
        (LIST, answers(404), "not_found", "check VOXTRAL_MODEL_ID"),
        (WEIGHTS, answers(404), "not_found", f"{WEIGHTS} (404)"),
        (LIST, answers(429, Retry_After="300"), "rate_limited", "asks to wait 300 s"),
        (LIST, answers(429, RateLimit='"api";r=0;t=55'), "rate_limited", "asks to wait 55 s"),
        (LIST, answers(418), "hub_error", "answered 418"),
        (LIST, answers(200, b"<html>Log in to the hotel's network"), "hub_error", "a proxy"),
        (LIST, answers(200, b'{"siblings": 3}'), "hub_error", "a proxy"),
    ],
)
def test_what_no_second_attempt_would_mend_is_said_at_once(
    hub: Hub, settings: Settings, where: str, fault: object, reason: str, says: str
) -> None:
    hub.fails(where, fault)  # type: ignore[arg-type]

    error = failure(settings)

    assert error.reason == reason
    assert says in str(error)
    assert len(hub.ranges(where)) == 1


def test_a_token_that_is_not_taken_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.fails(LIST, answers(401))

    error = failure(made(hub, tmp_path, HF_TOKEN="hf_secret"))

    assert "does not take this HF_TOKEN" in str(error)
    assert "hf_secret" not in str(error)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("where", [LIST, "params.json"])
def test_what_passes_is_tried_again(hub: Hub, settings: Settings, status: int, where: str) -> None:
    hub.fails(where, answers(status), answers(status))

    assert held(fetched(settings)) == NEEDED_FILES
    assert len(hub.ranges(where)) == HASTY.attempts


@pytest.mark.parametrize(("status", "reason"), [(429, "rate_limited"), (503, "hub_error")])
def test_what_does_not_pass_ends_after_some_attempts(
    hub: Hub, settings: Settings, status: int, reason: str
) -> None:
    hub.fails(LIST, *[answers(status)] * 5)

    assert failure(settings).reason == reason
    assert len(hub.ranges(LIST)) == HASTY.attempts


def test_a_retry_waits_as_long_as_the_hub_asks(hub: Hub, settings: Settings) -> None:
    hub.fails(LIST, answers(429, Retry_After="1"))
    notes: list[str] = []

    fetch(settings, progress=lambda report: notes.append(report.note), patience=HASTY)

    assert any("(429)" in note and note.endswith("in 1 s.") for note in notes)


def test_wrong_bytes_are_fetched_once_more(hub: Hub, settings: Settings) -> None:
    wrong = bytes(len(FILES[WEIGHTS]))
    hub.fails(WEIGHTS, sends(wrong))

    assert held(fetched(settings)) == NEEDED_FILES
    assert len(hub.ranges(WEIGHTS)) == 2


@pytest.mark.parametrize("size", [len(FILES[WEIGHTS]), len(FILES[WEIGHTS]) + 70_000])
def test_wrong_bytes_twice_are_an_error_and_leave_no_file(
    hub: Hub, settings: Settings, size: int
) -> None:
    hub.fails(WEIGHTS, sends(bytes(size)), sends(bytes(size)))

    error = failure(settings)

    assert (error.reason, WEIGHTS in str(error)) == ("wrong_hash", True)
    assert WEIGHTS not in held(Path(settings.model_dir))
    assert not [name for name in hidden(Path(settings.model_dir)) if name.endswith(".part")]


def test_without_a_network_that_is_what_is_said(tmp_path: Path, hub: Hub) -> None:
    error = failure(made(hub, tmp_path, HF_ENDPOINT="http://127.0.0.1:1"))

    assert error.reason == "no_network"
    assert "http://127.0.0.1:1 cannot be reached" in str(error)


def test_a_half_written_folder_without_a_network_is_said_to_be_one(
    hub: Hub, settings: Settings
) -> None:
    hub.fails(WEIGHTS, standin.truncates(100_000), *[answers(500)] * 3)
    assert failure(settings).reason == "hub_error"

    error = failure(attrs.evolve(settings, hf_endpoint="http://127.0.0.1:1"))

    assert error.reason == "incomplete"
    assert "holds only a part of the model" in str(error)
    assert held(fetched(settings)) == NEEDED_FILES
    assert hub.sent[WEIGHTS] == len(FILES[WEIGHTS])


def test_an_impossible_model_id_is_said_before_anything_is_asked(hub: Hub, tmp_path: Path) -> None:
    error = failure(made(hub, tmp_path, VOXTRAL_MODEL_ID="no/such/model"))

    assert (error.reason, hub.requests) == ("not_found", [])


# --- Faults of the folder.


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


# --- Processes, threads, cancelling.


def command(hub: Hub, tmp_path: Path) -> subprocess.Popen[bytes]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.Popen(
        [sys.executable, "-m", "voxtral_actors", "fetch"],
        env=env | environment(hub, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_p19_a_second_fetcher_goes_on_where_a_killed_one_stopped(
    hub: Hub, settings: Settings, tmp_path: Path
) -> None:
    """`kill -9` in the middle of a file, while another process waits for the folder."""
    half = len(FILES[WEIGHTS]) // 2
    hub.fails(WEIGHTS, standin.stalls(half))
    reports: list[Progress] = []
    results: list[Path] = []
    folder = Path(settings.model_dir)

    with command(hub, tmp_path) as first:
        until(lambda: any(p.stat().st_size == half for p in folder.glob(f".{WEIGHTS}.*.part")))
        second = threading.Thread(
            target=lambda: results.append(
                fetch(settings, progress=reports.append, patience=attrs.evolve(HASTY, lock_s=9))
            )
        )
        second.start()
        until(lambda: any(report.doing == "waiting" for report in reports))
        first.send_signal(signal.SIGKILL)
        first.communicate()
    second.join(10)

    assert results == [folder]
    assert held(folder) == NEEDED_FILES
    assert hub.ranges(WEIGHTS) == ["", f"bytes={half}-"]
    assert hub.sent[WEIGHTS] == len(FILES[WEIGHTS])


def test_the_command_prints_the_folder_and_how_far_it_is(hub: Hub, tmp_path: Path) -> None:
    with command(hub, tmp_path) as process:
        out, err = process.communicate(timeout=20)

    assert (process.returncode, out.decode()) == (0, f"{tmp_path}/model\n")
    assert "Loading consolidated.safetensors" in err.decode()


def test_many_fetchers_of_one_folder_fetch_it_once(hub: Hub, settings: Settings) -> None:
    hub.fails(WEIGHTS, drips(0.01, 30_000))
    results: list[Path] = []
    threads = [threading.Thread(target=lambda: results.append(fetched(settings))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(results) == 4
    assert held(Path(settings.model_dir)) == NEEDED_FILES
    assert sorted(what for what, _, _ in hub.requests) == sorted([LIST, *NEEDED])


def test_a_holder_that_shows_no_sign_of_life_is_not_waited_for_longer(
    settings: Settings,
) -> None:
    folder = Path(settings.model_dir)
    folder.mkdir()

    def no_wait() -> None:
        raise AssertionError

    from voxtral_actors.engine import atomic

    with atomic.locked(folder / modelfolder.LOCK, no_wait):
        error = failure(settings)

    assert error.reason == "busy"
    assert "has done nothing for 1 s" in str(error)


def test_a_cancelled_fetch_stops_between_two_pieces_and_can_go_on(
    hub: Hub, settings: Settings
) -> None:
    hub.fails(WEIGHTS, drips(0.02, 3000))

    with pytest.raises(FetchCancelled):
        fetch(settings, cancelled=lambda: hub.sent[WEIGHTS] > 20_000, patience=HASTY)

    assert hub.sent[WEIGHTS] < len(FILES[WEIGHTS]) // 2
    assert held(fetched(settings)) == NEEDED_FILES
    assert hub.ranges(WEIGHTS)[1].startswith("bytes=")


def test_a_cancelled_fetch_does_not_wait_out_a_pause(hub: Hub, settings: Settings) -> None:
    hub.fails(LIST, answers(429, Retry_After="60"))
    patience = attrs.evolve(HASTY, max_pause_s=100)
    notes: list[str] = []

    with pytest.raises(FetchCancelled):
        fetch(
            settings,
            progress=lambda report: notes.append(report.note),
            cancelled=lambda: any(notes),
            patience=patience,
        )


async def test_ready_fetches_in_a_thread_and_sets_the_delay(settings: Settings) -> None:
    with trio.fail_after(10):
        folder = await ready(settings, progress=lambda _: None, patience=HASTY)

    assert json.loads((folder / "tekken.json").read_bytes())["audio"][
        "transcription_delay_ms"
    ] == 400  # fmt: skip


async def test_cancelling_ready_returns_at_once_and_its_thread_ends(
    hub: Hub, settings: Settings
) -> None:
    hub.fails(WEIGHTS, drips(0.02, 1000))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ready, settings, progress=lambda _: None, patience=HASTY))
            await trio.to_thread.run_sync(until, lambda: hub.sent[WEIGHTS] > 2000)
            nursery.cancel_scope.cancel()
        sent = hub.sent[WEIGHTS]
        # The thread lets the folder go: somebody else gets it, long before the file would end.
        assert await trio.to_thread.run_sync(fetched, settings) == Path(settings.model_dir)

    assert sent < len(FILES[WEIGHTS]) // 2
