"""The embedded engine with its real recogniser: what is heard, and what is left of processes.

Real processes run here, so time is real; nothing is measured, and every test has a limit. After
each test no child process may be left, not even a zombie.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import soundfile
import trio
import trio.testing

from tests.engine.sphinx_harness import SECOND, Recorded, busy_pids, children, ended, running
from voxtral_actors import limits
from voxtral_actors.engine.port import Failed, Finished, Progress, Released, Text
from voxtral_actors.engine.sphinx import SphinxBackend

pytest.importorskip("pocketsphinx", reason="the embedded engine is not installed")

DEMO = files("voxtral_actors.demo")
LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
PAUSE = 0.7  # seconds of silence, longer than the detector's window


@pytest.fixture(autouse=True)
def _no_child_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def sample() -> tuple[bytes, str]:
    """The demo's audio and what is said in it."""
    with DEMO.joinpath("sample.flac").open("rb") as file:
        samples, rate = soundfile.read(file, dtype="int16")
    assert rate == limits.SAMPLE_RATE
    return samples.tobytes(), DEMO.joinpath("sample.txt").read_text("utf-8").strip()


async def test_sample_is_recognised_word_for_word_and_sentence_by_sentence() -> None:
    pcm, expected = sample()
    first_pause = len(SECOND) * 3
    with trio.fail_after(30):
        async with running(SphinxBackend(1)) as backend:
            heard = Recorded(backend)
            heard.feed(pcm[:first_pause])
            await heard.until(Text)  # final text comes while the stream goes on
            heard.feed(pcm[first_pause:])
            heard.stream.finish()
            events = await heard.all()

    assert "".join(heard.texts) == expected
    assert len(heard.texts) == 3
    assert events[-1] == Finished(len(pcm) // 2)
    assert sum(isinstance(event, Progress) for event in events) > 50
    positions = [event.consumed for event in events if not isinstance(event, Failed | Released)]
    assert positions == sorted(positions)


async def test_speech_up_to_the_last_sample_is_not_lost() -> None:
    """The stream ends inside the last word's decay, with a tail that is no whole frame."""
    pcm, expected = sample()
    speech_end = max(i for i in range(0, len(pcm), 2) if abs(_sample(pcm, i)) > 300) + 2
    third = speech_end - len(SECOND) * 19 // 10
    tail = pcm[third - third % 2 : speech_end]
    with trio.fail_after(30):
        async with running(SphinxBackend(1)) as backend:
            heard = Recorded(backend)
            heard.feed(tail)
            heard.stream.finish()
            assert (await heard.all())[-1] == Finished(len(tail) // 2)

    assert "".join(heard.texts).split()[-3:] == expected.split()[-3:]


def _sample(pcm: bytes, at: int) -> int:
    return int.from_bytes(pcm[at : at + 2], "little", signed=True)


@pytest.mark.skipif(not LIBRIVOX.exists(), reason="Debian's pocketsphinx-testdata is not installed")
async def test_most_words_of_read_speech_are_recognised() -> None:
    reference: list[str] = []
    pcm = b""
    for line in (LIBRIVOX / "transcription").read_text().splitlines():
        words, name = re.fullmatch(r"<s> (.*) </s> \((.*)\)", line).groups()  # type: ignore[union-attr]
        reference += words.split()
        with wave.open(str(LIBRIVOX / f"{name}.wav")) as file:
            pcm += file.readframes(file.getnframes())
        pcm += SECOND[: int(len(SECOND) * PAUSE) // 2 * 2]
    with trio.fail_after(60):
        async with running(SphinxBackend(1)) as backend:
            heard = Recorded(backend)
            heard.feed(pcm)
            heard.stream.finish()
            await heard.all()

    hits = _common(reference, "".join(heard.texts).split())
    assert hits / len(reference) >= 0.7


def _common(left: list[str], right: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for at, other in enumerate(right, start=1):
            diagonal, row[at] = (
                row[at],
                diagonal + 1 if word == other else max(row[at], row[at - 1]),
            )
    return row[-1]


@pytest.mark.parametrize("samples", [0, 481])
async def test_stream_shorter_than_speech_just_ends(samples: int) -> None:
    with trio.fail_after(15):
        async with running(SphinxBackend(1)) as backend:
            heard = Recorded(backend)
            heard.feed(bytes(2 * samples))
            heard.stream.finish()
            assert await heard.all() == [Finished(samples)]


async def test_abort_frees_the_worker_and_says_released_once() -> None:
    with trio.fail_after(15):
        async with running(SphinxBackend(1)) as backend:
            heard = Recorded(backend)
            heard.feed(60 * SECOND)
            await heard.until(Progress)
            pids = busy_pids(backend)
            heard.stream.abort()
            heard.stream.abort()
            heard.stream.feed(SECOND)
            heard.stream.finish()
            assert not any(isinstance(event, Finished | Failed) for event in await heard.all())
            assert pids - busy_pids(backend)
            assert backend.statistics().streams == 0


async def test_abort_works_on_a_stopped_worker() -> None:
    with trio.fail_after(15):
        async with running(SphinxBackend(1)) as backend:
            heard = Recorded(backend)
            heard.feed(SECOND)
            await heard.until(Progress)
            for pid in busy_pids(backend):
                os.kill(pid, signal.SIGSTOP)
            heard.feed(60 * SECOND)
            heard.stream.abort()
            await heard.all()


async def test_progress_is_what_was_decoded_not_what_was_sent() -> None:
    """A worker that stands still consumes nothing; when it goes on, it consumes all of it."""
    with trio.fail_after(20):
        async with running(SphinxBackend(1)) as backend:
            heard = Recorded(backend)
            heard.feed(SECOND)
            await heard.until(Progress)
            for pid in busy_pids(backend):
                os.kill(pid, signal.SIGSTOP)
            heard.feed(20 * SECOND)
            await trio.testing.wait_all_tasks_blocked()
            consumed = [event.consumed for event in heard.events if isinstance(event, Progress)]
            assert max(consumed) <= limits.SAMPLE_RATE
            for pid in busy_pids(backend):
                os.kill(pid, signal.SIGCONT)
            heard.stream.finish()
            assert (await heard.all())[-1] == Finished(21 * limits.SAMPLE_RATE)


async def test_killed_worker_fails_its_stream_only() -> None:
    with trio.fail_after(20):
        async with running(SphinxBackend(2)) as backend:
            heard = Recorded(backend)
            heard.feed(SECOND)
            await heard.until(Progress)
            for pid in busy_pids(backend):  # the warm ones as well: they are replaced
                os.kill(pid, signal.SIGKILL)
            (*_, last) = await heard.all()
            assert isinstance(last, Failed)
            assert (last.reason_code, last.retryable) == ("engine_stream_lost", True)
            again = Recorded(backend)
            again.feed(SECOND)
            again.stream.finish()
            (*_, last) = await again.all()
            assert last == Finished(limits.SAMPLE_RATE)


async def test_workers_leave_the_signals_of_a_group_to_the_parent() -> None:
    with trio.fail_after(15):
        async with running(SphinxBackend(1)) as backend:
            heard = Recorded(backend)
            heard.feed(SECOND)
            await heard.until(Progress)
            for pid in busy_pids(backend):
                os.kill(pid, signal.SIGINT)
                os.kill(pid, signal.SIGTERM)
            heard.stream.finish()
            assert (await heard.all())[-1] == Finished(limits.SAMPLE_RATE)


PARENT = """
import os, signal, trio
from tests.engine.sphinx_harness import Recorded, SECOND, busy_pids, running
from voxtral_actors.engine.port import Progress
from voxtral_actors.engine.sphinx import SphinxBackend

async def main():
    async with running(SphinxBackend(1)) as backend:
        heard = Recorded(backend)
        heard.feed(5 * SECOND)
        await heard.until(Progress)
        print(*busy_pids(backend), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


async def test_workers_end_when_the_parent_is_killed() -> None:
    with trio.fail_after(20):
        run = await trio.run_process(
            [sys.executable, "-c", PARENT],
            capture_stdout=True,
            check=False,
            cwd=Path(__file__).parents[2],
            stderr=subprocess.DEVNULL,
        )
        assert run.returncode == -signal.SIGKILL
        pids = list(map(int, run.stdout.split()))
        assert pids
        for pid in pids:
            await ended(pid)
