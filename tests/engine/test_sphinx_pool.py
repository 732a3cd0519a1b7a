"""The embedded engine with workers that misbehave on purpose: scripts that speak its framing."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.engine.sphinx_harness import SECOND, Recorded, children, running
from voxtral_actors import limits
from voxtral_actors.engine import sphinx_limits
from voxtral_actors.engine.port import EngineInfo, Failed, Finished, Progress, Text
from voxtral_actors.engine.registry import EngineSetupError
from voxtral_actors.engine.sphinx import SphinxBackend, create
from voxtral_actors.engine.sphinx_pool import WorkerLostError
from voxtral_actors.settings import load

PRELUDE = """
import os, struct, sys, time
def say(kind, consumed=0, text=b"", length=None):
    length = len(text) if length is None else length
    os.write(1, struct.pack("<cQI", kind, consumed, length) + text)
def hear():
    size = struct.unpack("<I", sys.stdin.buffer.read(4))[0]
    return sys.stdin.buffer.read(size)
"""
ECHO = """
say(b"R")
total = 0
while piece := hear():
    total += len(piece) // 2
    say(b"P", total)
say(b"F", total)
"""


def script(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", PRELUDE + code]


@pytest.fixture(autouse=True)
def _no_child_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def start(backend: SphinxBackend) -> EngineInfo:
    """Run the backend until it is ready, then stop it."""
    async with trio.open_nursery() as nursery:
        info: EngineInfo = await nursery.start(
            lambda task_status: backend.run(task_status=task_status)
        )
        nursery.cancel_scope.cancel()
    return info


async def test_info_says_what_serves_and_that_it_is_not_for_production() -> None:
    settings = load({"VOXTRAL_API_KEY": "k", "MAX_CONCURRENT_CONNECTIONS": "7"})
    with trio.fail_after(15):
        info = await start(SphinxBackend(create(settings)._slots, script(ECHO)))
    assert (info.name, info.model) == ("sphinx", "pocketsphinx-en-us")
    assert info.slots == 7 * sphinx_limits.SLOTS_A_CONNECTION
    assert "production" in info.note


def test_missing_pocketsphinx_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said when the engine is looked up, before a port is open."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    settings = load({"VOXTRAL_API_KEY": "k", "MAX_CONCURRENT_CONNECTIONS": "1"})
    with pytest.raises(EngineSetupError, match=r"voxtral-actors\[sphinx\]"):
        create(settings)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (script("sys.exit(3)"), "died"),
        (script("os.write(1, b'Traceback (most recent call last):')"), "garbage"),
        (script('say(b"P")'), "garbage"),
        (["/nonexistent/python"], "cannot be started"),
        (script("time.sleep(60)"), "does not get ready"),
    ],
)
async def test_backend_whose_first_worker_cannot_start_does_not_start(
    command: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sphinx_limits, "START_S", 1.0)
    backend = SphinxBackend(1, command)
    with trio.fail_after(10), pytest.raises(WorkerLostError, match=says):
        await backend.run(task_status=trio.TASK_STATUS_IGNORED)
    assert backend.statistics().workers == 0


@pytest.mark.parametrize(
    "code",
    [
        "hear()",  # and gone
        'hear(); os.write(1, b"P123")',  # gone inside an event
        'hear(); say(b"X"); hear(); hear(); hear()',
        'hear(); say(b"R"); hear(); hear(); hear()',
        'hear(); say(b"T", 10, b""); hear(); hear(); hear()',
        r'hear(); say(b"T", 10, b"\xff\xfe"); hear(); hear(); hear()',
        'hear(); say(b"T", 10, length=1 << 31); hear(); hear(); hear()',
        'hear(); say(b"P", 1 << 40); hear(); hear(); hear()',
        'hear(); say(b"P", 10); say(b"P", 9); hear(); hear(); hear()',
        'hear(); say(b"F", 1600); hear(); hear(); hear()',  # nobody said finish
    ],
)
async def test_worker_that_dies_or_sends_garbage_fails_its_stream(code: str) -> None:
    with trio.fail_after(10):
        async with running(SphinxBackend(1, script('say(b"R")\n' + code))) as backend:
            heard = Recorded(backend)
            heard.stream.feed(SECOND[: sphinx_limits.PIECE_BYTES])
            (*before, last) = await heard.all()
    assert isinstance(last, Failed)
    assert (last.reason_code, last.retryable) == ("engine_stream_lost", True)
    assert all(event == Progress(10) for event in before)


async def test_sender_does_not_hang_on_a_worker_that_never_reads() -> None:
    """The pipe to a worker that never reads is full; the end of the worker frees the sender."""
    code = 'say(b"R"); say(b"T", 0, b"hello"); time.sleep(0.2)'
    with trio.fail_after(10):
        async with running(SphinxBackend(1, script(code))) as backend:
            heard = Recorded(backend)
            heard.feed(20 * SECOND)
            heard.stream.finish()
            text, failed = await heard.all()
    assert text == Text("hello", 0)
    assert isinstance(failed, Failed)


async def test_stream_that_finds_no_worker_hears_why_one_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first workers start, later ones do not; the backend lives on and tries again."""
    monkeypatch.setattr(sphinx_limits, "RETRY_S", 0.01)
    broken = tmp_path / "broken"
    code = f"if os.path.exists({str(broken)!r}): sys.exit(1)\n{ECHO}"
    with trio.fail_after(15):
        async with running(SphinxBackend(9, script(code))) as backend:
            held = [Recorded(backend) for _ in range(sphinx_limits.WARM)]
            for stream in held:
                stream.feed(SECOND)
                await stream.until(Progress)
            broken.touch()
            # Workers that were warm by then serve some of these; who gets them is not ordered.
            others = [Recorded(backend) for _ in range(sphinx_limits.WARM + 1)]
            for stream in others:
                stream.stream.finish()
            ends = [(await stream.all())[-1] for stream in others]
            assert any(isinstance(end, Failed) for end in ends)
            for stream in held:
                stream.stream.finish()
                assert (await stream.all())[-1] == Finished(limits.SAMPLE_RATE)
            broken.unlink()
            while True:  # a start that failed just before may still be reported
                again = Recorded(backend)
                again.stream.finish()
                if await again.all() == [Finished(0)]:
                    break


async def test_abort_works_on_a_stream_that_waits_for_a_worker() -> None:
    with trio.fail_after(10):
        async with running(
            SphinxBackend(9, script("say(b'R'); hear(); time.sleep(60)"))
        ) as backend:
            streams = [Recorded(backend) for _ in range(6)]
            for stream in streams:
                stream.feed(SECOND)
                stream.stream.abort()
                assert await stream.all() == []


async def test_many_streams_leave_nothing_behind() -> None:
    with trio.fail_after(20):
        async with running(SphinxBackend(9, script(ECHO))) as backend:
            descriptors = []
            for _ in range(15):
                heard = Recorded(backend)
                heard.feed(SECOND)
                heard.stream.finish()
                assert (await heard.all())[-1] == Finished(limits.SAMPLE_RATE)
                assert backend.statistics().streams == 0
                assert backend.statistics().workers <= sphinx_limits.WARM
                descriptors.append(open_descriptors())
            # A worker has two pipes and a process handle; one more may be starting.
            assert max(descriptors[5:]) <= max(descriptors[:5]) + 5


async def test_cancelled_run_leaves_no_process_in_any_state() -> None:
    """Streams that wait, speak, are stopped; workers that load, are warm, are dying."""
    with trio.fail_after(20):
        for _ in range(3):
            async with running(SphinxBackend(9, script(ECHO))) as backend:
                streams = [Recorded(backend) for _ in range(5)]
                for stream in streams[:3]:
                    stream.feed(SECOND)
                await streams[0].until(Progress)
                streams[1].stream.abort()
            assert not children()
