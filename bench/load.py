"""The load generator: sessions that speak to a server, and what that costs and how late it answers.

    python -m bench.load ws://127.0.0.1:8000/ws --key KEY --sessions 16 --pid PID
    python -m bench.load ws://127.0.0.1:8000/v1/realtime --dialect realtime --sessions 16

It is a process of its own and speaks over real sockets; `--pid` names the processes whose CPU time
and memory it is to report.
"""

from __future__ import annotations

import argparse
import json
import sys

import attrs
import trio

from bench.figures import SHOWN, table
from bench.load_drive import Drive, Plan, Result
from bench.load_voices import Target
from bench.sounds import AUDIO


def show(result: Result) -> str:
    """The result for people."""

    def spread(figures: dict[str, float]) -> list[str]:
        return [f"{figures[name]:.1f}" if name in figures else "-" for name in SHOWN]

    rows = [
        ["lag of text, ms", *spread(result.lag_ms)],
        ["last audio to last text, ms", *spread(result.final_ms)],
        ["connect, ms", *spread(result.connect_ms)],
    ]
    lines = [table(["", *SHOWN], rows), ""]
    lines.append(
        f"{result.audio_s:.1f} s of audio in {result.window_s:.1f} s,"
        f" {result.utterances} utterances, {result.deltas} deltas,"
        f" {sum(result.errors.values())} errors"
    )
    lines += [f"  {number} x {error}" for error, number in result.errors.items()]
    for pid, cpu in result.cpu_s.items():
        audio = 1000 * cpu / result.audio_s if result.audio_s else 0.0
        lines.append(
            f"process {pid}: {cpu / result.window_s:.0%} of a core, {audio:.2f} ms of CPU a second"
            f" of audio"
        )
    if result.cpu_s:
        lines.append(f"memory a session: {result.memory_kb_a_session:.0f} KB")
    lines.append(
        f"this generator: {result.generator_share:.0%} of a core, chunks late by"
        f" {result.slip_p99_ms:.1f} ms at p99"
    )
    if result.plan.live and not result.kept_pace:
        lines.append("THE SERVER DID NOT KEEP PACE: less audio went in than was spoken.")
    if result.generator_is_bottleneck:
        lines.append("THE GENERATOR IS THE BOTTLENECK: these figures say little about the server.")
    return "\n".join(lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.load", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("url")
    parser.add_argument("--dialect", choices=("ws", "realtime"), default="ws")
    parser.add_argument("--key", help="the server's API key")
    parser.add_argument("--text", action="store_true", help="audio as base64 in text frames")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0, help="that are measured")
    parser.add_argument("--chunk-ms", type=int, default=80)
    parser.add_argument("--fast", action="store_true", help="closed loop instead of live pace")
    parser.add_argument("--utterance-s", type=float, default=10.0, help="with --fast: its length")
    parser.add_argument("--ramp-s", type=float, default=1.0, help="over which sessions begin")
    parser.add_argument("--audio", choices=sorted(AUDIO), default="speech")
    parser.add_argument("--pid", type=int, action="append", default=[], help="of the server")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse(sys.argv[1:])
    plan = Plan(
        sessions=options.sessions,
        seconds=options.seconds,
        chunk_ms=options.chunk_ms,
        live=not options.fast,
        utterance_s=options.utterance_s,
        ramp_s=options.ramp_s,
    )
    target = Target(options.url, options.dialect, not options.text, options.key)
    drive = Drive(plan, target, AUDIO[options.audio](), options.pid)
    result: Result = trio.run(drive.run)
    if options.json:
        print(json.dumps(attrs.asdict(result), indent=2))
    else:
        print(show(result))


if __name__ == "__main__":
    main()
