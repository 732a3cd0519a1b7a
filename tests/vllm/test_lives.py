"""Starts that fail, an engine that says nothing any more, several copies: whole lives of an engine.

Each takes the better part of a minute, so one test looks at more than one thing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import psutil
import pytest
import structlog
import trio

from tests.engine.engine_harness import SPEC, feed_in_pieces, hear, running, say, until
from tests.vllm import sounds
from tests.vllm.vllm_harness import (
    SETTINGS,
    START_S,
    engine_core,
    family,
    nothing_left,
    settings,
    shared_memory,
)
from voxtral_actors import limits
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.engine.port import Failed, Finished
from voxtral_actors.engine.vllm_realtime import VllmBackend, VllmEngine, create

SPOKEN = sounds.utterances()[0]


async def test_p15_two_failed_starts_then_a_stall_then_a_cancelled_start(
    said: dict[bytes, str], nobody_else: None, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ENGINE_RESTART_FIRST_S", 0.01)
    monkeypatch.setattr(limits, "VLLM_STALL_S", 2.0)
    faulty = [
        '{"no_such_argument": 1}',  # vLLM's arguments refuse it
        '{"dtype": "bfloat16", "max_logprobs": -7, "block_size": 3}',  # its configuration does
    ]
    lives: list[VllmBackend] = []

    def make() -> VllmBackend:
        args = faulty[len(lives)] if len(lives) < len(faulty) else SETTINGS["VLLM_ENGINE_ARGS"]
        lives.append(create(settings(model, VLLM_ENGINE_ARGS=args)))
        return lives[-1]

    with trio.fail_after(3 * START_S), structlog.testing.capture_logs() as logs:
        async with running(make) as actor:
            assert actor.statistics().deaths == len(faulty)
            unknown, invalid = (line["error"] for line in logs if line["event"] == "engine.died")
            assert "VLLM_ENGINE_ARGS has what vLLM does not know: no_such_argument" in unknown
            assert "max_logprobs" in invalid
            assert (await say(actor, SPOKEN)).text == said[SPOKEN]

            processes = family()
            memory = shared_memory(processes)
            assert memory
            stalled = actor.open(SPEC)
            feed_in_pieces(stalled, SPOKEN)
            os.kill(engine_core(), signal.SIGSTOP)
            with trio.fail_after(limits.VLLM_STALL_S + 10):
                last = (await hear(stalled)).last
            assert isinstance(last, Failed)
            assert last.reason_code == "engine_lost"
            assert actor.info is None
            (dead,) = (line["why"] for line in logs if line["event"] == "vllm.dead")
            assert dead == "no answer to a frame for 2 s"

            # The next life has just begun; cancelling it takes its processes away.
            while not (young := multiprocessing.active_children()):  # noqa: ASYNC110
                await trio.sleep(0.1)
            processes += [psutil.Process(process.pid) for process in young]
    await nothing_left(processes, memory)


async def test_two_copies_of_the_model_take_as_many_streams_as_their_memory_holds(
    said: dict[bytes, str], nobody_else: None, model: Path
) -> None:
    """So few blocks that they are the limit, and streams that grow to the length of the model."""
    tokens = 400
    few = settings(
        model,
        VLLM_DATA_PARALLEL_SIZE="2",
        VLLM_MAX_NUM_SEQS="16",
        VLLM_MAX_MODEL_LEN=str(tokens),
        VLLM_MAX_NUM_BATCHED_TOKENS="512",
        VLLM_ENGINE_ARGS=json.dumps(
            {**json.loads(SETTINGS["VLLM_ENGINE_ARGS"]), "num_gpu_blocks_override": 20}
        ),
    )
    long = sounds.pcm(sounds.sweep((tokens - 39) * 0.08 - 2, 100, 4000))
    heard: list[str] = []
    lives: list[VllmBackend] = []

    def make() -> VllmBackend:
        lives.append(create(few))
        return lives[-1]

    async def speak(actor: EngineActor, pcm: bytes) -> None:
        last = await say(actor, pcm)
        assert isinstance(last.last, Finished)
        heard.append(last.text)

    with trio.fail_after(2 * START_S):
        async with running(make) as actor:
            assert actor.info is not None
            slots = actor.info.slots
            assert 2 <= slots < 32
            async with trio.open_nursery() as nursery:
                for _ in range(min(slots, 4)):
                    nursery.start_soon(speak, actor, SPOKEN)
            assert heard == [said[SPOKEN]] * len(heard)
            await until(lambda: actor.statistics().slots_taken == 0)

            heard.clear()
            async with trio.open_nursery() as nursery:
                for _ in range(slots):
                    nursery.start_soon(speak, actor, long)
            assert heard == [heard[0]] * slots
            engine = lives[-1].engine
            assert isinstance(engine, VllmEngine)
            assert set(engine.figures.ranks) == {0, 1}
            assert all(rank.steps > 300 for rank in engine.figures.ranks.values())
            assert engine.figures.totals()["vllm_preemptions_total"] == 0
            print(f"{slots} slots, KV cache {engine.figures.totals()['vllm_kv_cache_usage']:.0%}")
            processes = family()
            assert len(processes) >= 2

    await nothing_left(processes, set())
