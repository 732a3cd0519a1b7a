"""The delay patch: what it changes, what it refuses, and what is left when it is stopped anywhere.

The tests of P19 put a layer between the module that writes and the system. It counts the calls,
and at the chosen one it raises, or kills the process with SIGKILL: before the call, after it, or
half way through a write. So every state that a crash can leave is looked at.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from voxtral_actors.engine import atomic, tekken
from voxtral_actors.engine.tekken import TekkenError, delay_tokens, set_delay

# Laid out like the real one, with what could be mistaken for the number that is meant.
CONTENT: dict[str, Any] = {
    "config": {"pattern": "\\p{L}+", "num_vocab_tokens": 2, "version": "v13"},
    "vocab": [
        {"rank": 0, "token_bytes": "AA==", "token_str": '"transcription_delay_ms": 1'},
        {"rank": 1, "token_bytes": "AQ==", "token_str": "é\u2028"},
    ],
    "audio": {
        "sampling_rate": 16000,
        "frame_rate": 12.5,
        "transcription_delay_ms": 480,
        "streaming_look_back_ms": 52.5,
    },
}
PUBLISHED = json.dumps(CONTENT, indent=2, ensure_ascii=False).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / tekken.FILE).write_bytes(PUBLISHED)
    return tmp_path


def delay_of(data: bytes) -> object:
    return json.loads(data)["audio"]["transcription_delay_ms"]


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_the_number_changes(folder: Path) -> None:
    assert set_delay(folder, 400) == 5

    assert (folder / tekken.FILE).read_bytes() == PUBLISHED.replace(b" 480,", b" 400,")
    assert (folder / tekken.ORIGINAL).read_bytes() == PUBLISHED


def test_setting_the_same_delay_again_writes_nothing(folder: Path) -> None:
    set_delay(folder, 400)
    before = {path: path.stat() for path in folder.iterdir()}

    set_delay(folder, 400)

    assert {path: path.stat().st_ino for path in folder.iterdir()} == {
        path: status.st_ino for path, status in before.items()
    }
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == {
        path: status.st_mtime_ns for path, status in before.items()
    }


def test_the_published_delay_needs_no_copy(folder: Path) -> None:
    set_delay(folder, 480)

    assert held(folder) == {tekken.FILE: PUBLISHED}


def test_another_delay_starts_from_the_published_file(folder: Path) -> None:
    set_delay(folder, 80)
    set_delay(folder, 2400)

    assert (folder / tekken.FILE).read_bytes() == PUBLISHED.replace(b" 480,", b" 2400,")
    assert (folder / tekken.ORIGINAL).read_bytes() == PUBLISHED

    set_delay(folder, 480)

    assert (folder / tekken.FILE).read_bytes() == PUBLISHED


def test_the_original_keeps_its_time_and_the_file_its_permissions(folder: Path) -> None:
    file = folder / tekken.FILE
    os.utime(file, ns=(10**18, 10**18 + 1))
    file.chmod(0o640)

    set_delay(folder, 400)

    assert (folder / tekken.ORIGINAL).stat().st_mtime_ns == 10**18 + 1
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_link_into_a_cache_is_replaced_and_the_cache_is_left_alone(folder: Path) -> None:
    cached = folder / "cached"
    (folder / tekken.FILE).rename(cached)
    (folder / tekken.FILE).symlink_to(cached)

    set_delay(folder, 400)

    assert cached.read_bytes() == PUBLISHED
    assert delay_of((folder / tekken.FILE).read_bytes()) == 400


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"audio": {"transcription_delay_ms": 9}}'])
def test_a_damaged_file_is_made_anew_from_the_original(folder: Path, damage: bytes) -> None:
    set_delay(folder, 400)
    right = held(folder)

    (folder / tekken.FILE).write_bytes(damage)
    set_delay(folder, 400)
    assert held(folder) == right

    (folder / tekken.FILE).unlink()
    set_delay(folder, 400)
    assert held(folder) == right


@pytest.mark.parametrize(("ms", "tokens"), [(80, 1), (400, 5), (480, 6), (2400, 30)])
def test_the_delay_in_tokens(ms: int, tokens: int) -> None:
    assert delay_tokens(ms) == tokens


@pytest.mark.parametrize("ms", [-80, 0, 79, 81, 100, 2401, 2480])
def test_a_delay_that_the_model_does_not_have_is_refused(folder: Path, ms: int) -> None:
    with pytest.raises(TekkenError, match=f"{ms} ms; allowed: a multiple of 80 from 80 to 2400"):
        set_delay(folder, ms)

    assert held(folder) == {tekken.FILE: PUBLISHED}


def changed(**audio: object) -> bytes:
    return json.dumps(CONTENT | {"audio": CONTENT["audio"] | audio}).encode()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON"),
        (PUBLISHED[:-5], "not JSON"),
        (b"\xff" + PUBLISHED, "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no object named audio"),
        (b"{}", "no object named audio"),
        (b'{"audio": [480]}', "no object named audio"),
        (b'{"audio": {"frame_rate": 12.5}}', "no number audio.transcription_delay_ms"),
        (changed(transcription_delay_ms="480"), "no number audio.transcription_delay_ms"),
        (changed(transcription_delay_ms=None), "no number audio.transcription_delay_ms"),
        (changed(transcription_delay_ms=True), "no number audio.transcription_delay_ms"),
        (changed(frame_rate=25), "frame_rate is not 12.5"),
        (changed(more={"transcription_delay_ms": 1}), "2 numbers named transcription_delay_ms"),
        (PUBLISHED.replace(b'_delay_ms": 480', b'_\\u0064elay_ms": 480'), "0 numbers named"),
        (  # the only number of that look is another member
            (
                b'{"transcription_delay_ms": 480,'
                b' "audio": {"transcription_\\u0064elay_ms": 480, "frame_rate": 12.5}}'
            ),
            "not where it should be",
        ),
    ],
)
def test_an_unknown_layout_is_an_error_and_nothing_is_touched(
    tmp_path: Path, data: bytes, says: str
) -> None:
    (tmp_path / tekken.FILE).write_bytes(data)

    with pytest.raises(TekkenError, match=says) as caught:
        set_delay(tmp_path, 400)

    assert str(tmp_path / tekken.FILE) in str(caught.value)
    assert held(tmp_path) == {tekken.FILE: data}


def test_a_folder_without_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TekkenError, match=r"holds no tekken.json"):
        set_delay(tmp_path, 400)


def test_processes_that_set_it_together_leave_a_right_file(folder: Path) -> None:
    threads = [threading.Thread(target=set_delay, args=(folder, 80 * n)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert (folder / tekken.ORIGINAL).read_bytes() == PUBLISHED
    assert delay_of((folder / tekken.FILE).read_bytes()) in range(80, 641, 80)


def test_a_lock_that_nobody_lets_go_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tekken, "TEKKEN_LOCK_S", 0.1)

    with (
        atomic.locked(folder / tekken.LOCK, lambda: None),
        pytest.raises(TekkenError, match="another process holds"),
    ):
        set_delay(folder, 400)


# --- P19: stopped at any call.

STEPS = ("open", "stat", "fchmod", "write", "utime", "fsync", "close", "replace", "unlink")


class System:
    """`os` as the writing module sees it: at call number `at` the fault happens instead."""

    def __init__(self, at: int, when: str, fault: Callable[[], object]) -> None:
        self.calls: list[tuple[str, object]] = []
        self._at, self._when, self._fault = at, when, fault

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in STEPS:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args[0]))
            if len(self.calls) - 1 != self._at:
                return real(*args, **kwargs)
            if self._when == "before":
                self._fault()
            elif name == "write":
                real(args[0], args[1][: len(args[1]) // 2])
                self._fault()
            try:
                return real(*args, **kwargs)
            finally:
                self._fault()

        return call


def count_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """All calls of a patch that nothing stops."""
    system = System(-1, "", lambda: None)
    with monkeypatch.context() as context:
        context.setattr(atomic, "os", system)
        set_delay(folder, 400)
    return system.calls


def start_over(folder: Path, delay_before: int | None) -> dict[str, bytes]:
    for path in folder.iterdir():
        path.unlink()
    (folder / tekken.FILE).write_bytes(PUBLISHED)
    if delay_before is not None:
        set_delay(folder, delay_before)
    return held(folder)


def check_old_or_new(folder: Path, before: dict[str, bytes], at: str) -> None:
    now = held(folder)
    old, new = before[tekken.FILE], PUBLISHED.replace(b" 480,", b" 400,")
    assert now[tekken.FILE] in {old, new}, at
    assert now.get(tekken.ORIGINAL, PUBLISHED) == PUBLISHED, at
    if now[tekken.FILE] != PUBLISHED:
        assert tekken.ORIGINAL in now, at

    set_delay(folder, 400)

    after = held(folder)
    assert after.pop(tekken.LOCK) == b""
    after.pop(f".{tekken.FILE}.tmp", None)
    after.pop(f".{tekken.ORIGINAL}.tmp", None)
    assert after == {tekken.FILE: new, tekken.ORIGINAL: PUBLISHED}, at


# Threads of other tests do not run on in the child, and it needs none of them.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("delay_before", [None, 2400], ids=["first", "again"])
@pytest.mark.parametrize("when", ["before", "within"])
def test_p19_killed_at_any_call_the_folder_holds_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, delay_before: int | None
) -> None:
    start_over(tmp_path, delay_before)
    steps = count_steps(tmp_path, monkeypatch)
    assert len(steps) > 8
    outcomes = set()

    for at, (name, target) in enumerate(steps):
        before = start_over(tmp_path, delay_before)
        child = os.fork()
        if child == 0:  # nothing but the patch happens here, and it never returns
            try:
                system = System(at, when, lambda: os.kill(os.getpid(), signal.SIGKILL))
                monkeypatch.setattr(atomic, "os", system)
                set_delay(tmp_path, 400)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"call {at} was not reached"
        outcomes.add(held(tmp_path)[tekken.FILE] == before[tekken.FILE])
        check_old_or_new(tmp_path, before, f"killed {when} call {at}, {name} of {target}")

    assert outcomes == {True, False}


@pytest.mark.parametrize("delay_before", [None, 2400], ids=["first", "again"])
@pytest.mark.parametrize("when", ["before", "within"])
def test_p19_an_error_at_any_call_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, delay_before: int | None
) -> None:
    def fault() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    start_over(tmp_path, delay_before)
    for at, (name, target) in enumerate(count_steps(tmp_path, monkeypatch)):
        before = start_over(tmp_path, delay_before)
        with monkeypatch.context() as context:
            context.setattr(atomic, "os", System(at, when, fault))
            with pytest.raises(TekkenError, match="No space left on device"):
                set_delay(tmp_path, 400)
        assert f".{tekken.FILE}.tmp" not in held(tmp_path)
        check_old_or_new(tmp_path, before, f"error {when} call {at}, {name} of {target}")


def test_p19_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power loss needs, and a killed process does not show."""
    calls = [name for name, _ in count_steps(folder, monkeypatch) if name != "stat"]

    once = ["open", "write", "fsync", "close", "replace", "open", "fsync", "close"]
    original, file = [*once[:2], "utime", *once[2:]], [once[0], "fchmod", *once[1:]]
    assert calls == ["open", *original, *file, "close"]
