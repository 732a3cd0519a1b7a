"""A fetch that is killed, cancelled, or not alone: real processes and threads on one folder.

What is waited for is an event, with a limit of some seconds.
"""

from __future__ import annotations

import json
import os
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

pytest.importorskip("huggingface_hub", reason="the vllm extra is not installed")

from tests.engine import hub as standin
from tests.engine.hub import LIST, Hub, answers, drips, until
from tests.engine.snapshot_harness import (
    FILES,
    HASTY,
    NEEDED,
    NEEDED_FILES,
    WEIGHTS,
    environment,
    failure,
    fetched,
    held,
)
from voxtral_actors.engine import atomic, modelfolder
from voxtral_actors.engine.modelfolder import local_snapshot
from voxtral_actors.engine.patience import Progress
from voxtral_actors.engine.snapshot import FetchCancelled, fetch, ready
from voxtral_actors.settings import Settings


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


def test_p19_stopped_anywhere_the_folder_is_incomplete_or_right(
    hub: Hub, settings: Settings
) -> None:
    """At each look at the flag in turn, in a new folder; the next fetch makes it right."""
    folder = Path(settings.model_dir)
    stopped = 0
    while True:
        looks = iter(range(stopped))
        try:
            fetch(settings, cancelled=partial(_none_left, looks), patience=HASTY)
        except FetchCancelled:
            stopped += 1
            assert local_snapshot(settings, full=True) is None
            assert held(fetched(settings)) == NEEDED_FILES
            shutil.rmtree(folder)
        else:
            break

    assert stopped > 15
    assert held(folder) == NEEDED_FILES


def _none_left(looks: Iterator[int]) -> bool:
    return next(looks, None) is None
