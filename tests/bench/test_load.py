"""The load generator against a real server in this process, with the scripted engine behind it."""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio

from bench import load
from bench.load_drive import Drive, Plan, Result, chunks
from bench.load_voices import Target
from tests.bench.realtime_stub import realtime_server
from tests.engine.scripted import speech
from tests.server.harness import serving
from tests.server.wire_client import KEY

AUDIO = speech(3.0)


def plan(sessions: int = 3, **fields: Any) -> Plan:
    return Plan(**{"sessions": sessions, "seconds": 0.5, "ramp_s": 0.1, "settle_s": 0.7, **fields})


async def drive(plan: Plan, target: Target) -> Result:
    with trio.fail_after(20):
        return await Drive(plan, target, AUDIO, [os.getpid()]).run()


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "text"])
async def test_sessions_speak_at_live_pace_and_are_heard(binary: bool) -> None:
    async with serving() as served:
        target = Target(f"ws://{served.authority}/ws", binary=binary, api_key=KEY)
        result = await drive(plan(), target)

    assert result.errors == {}
    assert result.utterances == 3
    assert result.kept_pace
    assert result.audio_s == pytest.approx(3 * result.window_s, rel=0.35)
    assert result.deltas > 0
    assert 0 < result.lag_ms["p50"] < 1000
    assert result.final_ms["p99"] >= result.final_ms["p50"] >= 0
    assert result.connect_ms["p50"] > 0
    assert result.cpu_s[os.getpid()] > 0


async def test_chunks_may_have_any_length() -> None:
    async with serving() as served:
        target = Target(f"ws://{served.authority}/ws", api_key=KEY)
        result = await drive(plan(1, chunk_ms=35), target)

    assert result.errors == {}
    assert result.audio_s == pytest.approx(result.window_s, rel=0.35)


async def test_in_the_closed_loop_more_is_heard_than_time_passes() -> None:
    async with serving() as served:
        target = Target(f"ws://{served.authority}/ws", api_key=KEY)
        result = await drive(plan(2, live=False, utterance_s=1.0, settle_s=0.0), target)

    assert result.errors == {}
    assert result.utterances > 2
    assert result.audio_s > 2 * result.window_s


async def test_refused_sessions_are_counted_by_their_error() -> None:
    async with serving(MAX_CONCURRENT_CONNECTIONS="2") as served:
        target = Target(f"ws://{served.authority}/ws", api_key=KEY)
        result = await drive(plan(3), target)

    assert sum(result.errors.values()) == 1
    assert "ConnectionRefused" in next(iter(result.errors))
    assert result.utterances == 2


async def test_a_server_that_is_not_there_is_an_error_of_each_session() -> None:
    result = await drive(plan(2), Target("ws://127.0.0.1:9/ws"))

    assert sum(result.errors.values()) == 2
    assert result.audio_s == 0


async def test_vllms_dialect_is_spoken_too() -> None:
    async with realtime_server() as url:
        result = await drive(plan(2), Target(url, "realtime"))

    assert result.errors == {}
    assert result.utterances == 2
    assert result.deltas > 0
    assert result.lag_ms["p50"] < 1000


async def test_an_utterance_that_fails_is_counted() -> None:
    async with realtime_server(fails=True) as url:
        result = await drive(plan(1), Target(url, "realtime"))

    assert result.errors == {"FailedError: error: processing_error": 1}


def test_the_audio_goes_round_in_chunks_of_one_size() -> None:
    audio = bytes(range(256)) * 13
    taken = chunks(audio, 80, seed=0)

    joined = b"".join(next(taken) for _ in range(5))

    assert joined == (audio * 4)[: len(joined)]


def test_a_generator_that_is_late_or_busy_says_so() -> None:
    good = Result(plan(), slip_p99_ms=5.0, generator_share=0.3)
    late = Result(plan(), slip_p99_ms=30.0)
    busy = Result(plan(live=False), slip_p99_ms=30.0, generator_share=0.95)

    assert [r.generator_is_bottleneck for r in (good, late, busy)] == [False, True, True]
    assert "BOTTLENECK" in load.show(late)
    assert "BOTTLENECK" not in load.show(good)
