"""A soak: a real server under rated load for a long time, and what has grown by the end of it.

    python -m bench.soak --minutes 20 --sessions 60

The server is a process of its own with the scripted engine behind it, so that what is measured is
the server and not a model. People connect, speak, cancel, interrupt, and leave in every way
(`soak_life.py`), always so many at a time. Every few seconds the server's memory, tasks,
descriptors, threads and the lateness of its event loop are read from outside.

It ends in a table: start, end and slope of each figure (least squares over the samples after the
first quarter, in units an hour, with its standard error), what is left when everybody has gone, and
a verdict by the bounds below. The figures go to `bench/results/soak.json`; the exit status is 0 for
a pass.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

from bench.figures import RESULTS, machine, save, table, versions
from bench.processes import cpu_seconds
from bench.soak_life import IDLE_S, PATIENCE_S, Crowd
from tests.chaos.real_harness import figures, many_descriptors, scripted_server, settled
from tests.server.server_process import ServerProcess

SAMPLE_S = 2.0
WARM_UP_S = 20.0
"""Load before the first look at what the server holds at rest: caches and pools fill up once."""

MB = 2**20
LAG_S = 0.02
LAG_SHARE = 0.01
"""P20: 99 of 100 looks find the loop less than 20 ms late."""
LONG_PASSES_A_MINUTE = 1.0
"""A pass over the ready tasks of more than 50 ms; a full garbage collection may be one."""

BUSY_SHARE = 0.05
"""The server waited for a core more than that: the machine did other things, or is too small."""

UNITS = {"rss": "MB", "blocks": "", "tasks": "", "descriptors": "", "threads": ""}
SLOPES = {"rss": 20.0, "blocks": math.inf, "tasks": 30.0, "descriptors": 30.0, "threads": 1.0}
"""Growth an hour that is no leak yet. Sixty seats see some 15,000 connections an hour, so the bound
of memory is about a kilobyte for each, and of what is counted in pieces nothing at all. Blocks have
none: between two full garbage collections they grow, and those may be minutes apart."""
SETTLING = {"rss": 3.0, "blocks": 0.0, "tasks": 5.0, "descriptors": 5.0, "threads": 0.0}
"""So much is no growth however steep it is: a heap settles in a short run, and a crowd varies."""
LEFT = {"rss": math.inf, "blocks": 10_000.0, "tasks": 0.0, "descriptors": 0.0, "threads": 0.0}
"""What may be left at rest, over what was there at rest before, garbage collected both times. (Its
memory does not all go back to the system, so the size at rest says nothing.)"""


@attrs.frozen
class Slope:
    """Of a line through samples, with its standard error; units an hour."""

    an_hour: float
    error: float

    @classmethod
    def of(cls, times_s: Sequence[float], values: Sequence[float]) -> Slope:
        hours = [time / 3600 for time in times_s]
        line = statistics.linear_regression(hours, values)
        off = [v - line.intercept - line.slope * h for h, v in zip(hours, values, strict=True)]
        spread = math.fsum((hour - statistics.fmean(hours)) ** 2 for hour in hours)
        error = math.sqrt(math.fsum(each**2 for each in off) / (len(off) - 2) / spread)
        return cls(line.slope, error)

    def exceeds(self, bound: float) -> bool:
        """Whether it is above the bound for certain: by twice its error."""
        return self.an_hour - 2 * self.error > bound


@attrs.frozen
class Sample:
    """The server at one moment."""

    at_s: float
    rss: float
    blocks: float
    tasks: float
    descriptors: float
    threads: float
    sessions: float
    raw: dict[str, float] = attrs.field(repr=False)


def threads_of(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"Threads:\s+(\d+)", status)
    return float(found[1]) if found else math.nan


def waited_s(pid: int) -> float:
    """How long the process could have run and got no core."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9


async def look(server: ServerProcess, began: float) -> Sample:
    with trio.fail_after(PATIENCE_S):
        while True:
            raw = await figures(server)
            try:
                return Sample(
                    at_s=trio.current_time() - began,
                    rss=raw["process_resident_memory_bytes"] / MB,
                    blocks=raw["memory_blocks"],
                    tasks=raw["tasks"],
                    descriptors=raw["process_open_fds"],
                    threads=threads_of(server.process.pid),
                    sessions=raw["connections_open"],
                    raw=raw,
                )
            except KeyError:  # under load the crowd pushes a scrape out, which cuts its answer
                await trio.sleep(0.1)


async def at_rest(server: ServerProcess, began: float) -> Sample:
    """When everybody has gone, and what nobody holds has been collected."""
    with trio.fail_after(60):
        await settled(server)
    server.signal(signal.SIGUSR1)
    await trio.sleep(1)
    return await look(server, began)


async def watched(server: ServerProcess, crowd: Crowd, seconds: float) -> list[Sample]:
    """Samples of the time in which the crowd is there in full."""
    samples: list[Sample] = []
    began = trio.current_time()

    async def watch() -> None:
        while True:
            await trio.sleep(SAMPLE_S)
            samples.append(await look(server, began))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await crowd.run(seconds)
        nursery.cancel_scope.cancel()
    return [sample for sample in samples if sample.at_s <= seconds]


def lateness(first: Sample, last: Sample) -> tuple[float, dict[str, float]]:
    """The share of looks that found the loop late, and bounds that percentiles are below."""
    bounds: dict[float, float] = {}
    for name in last.raw:
        if found := re.fullmatch(r"loop_lag_seconds_bucket\{(.+)\}", name):
            bounds[float(found[1])] = last.raw[name] - first.raw[name]
    total = bounds[math.inf]

    def below(share: float) -> float:
        return 1000 * next(bound for bound in sorted(bounds) if bounds[bound] >= share * total)

    named = {"p50": below(0.5), "p99": below(0.99), "p99.9": below(0.999)}
    return 1 - bounds[LAG_S] / total, named


async def soak(seats: int, seconds: float) -> dict[str, Any]:
    settings = {"MAX_CONCURRENT_CONNECTIONS": str(2 * seats), "WS_IDLE_TIMEOUT_S": f"{IDLE_S:g}"}
    with tempfile.TemporaryDirectory() as folder, many_descriptors(4 * seats + 200):
        async with scripted_server(Path(folder), **settings) as server:
            began = trio.current_time()
            warm_up = Crowd(server, seats, seed=0)
            await warm_up.run(WARM_UP_S)
            before = await at_rest(server, began)
            crowd = Crowd(server, seats)
            pid = server.process.pid
            used, waited = cpu_seconds(pid), waited_s(pid)
            samples = await watched(server, crowd, seconds)
            used, waited = cpu_seconds(pid) - used, waited_s(pid) - waited
            after = await at_rest(server, began)
            server.signal(signal.SIGTERM)
            with trio.fail_after(60):
                status = await server.exit_status()
            errors = [line["event"] for line in server.log if line["level"] == "error"]
    return judged(before, samples, after, warm_up.wrong + crowd.wrong, status, errors) | {
        "minutes": seconds / 60,
        "sessions": seats,
        "happened": dict(crowd.happened),
        "server_share_of_a_core": used / seconds,
        "server_waited_for_a_core": waited / seconds,
    }


def judged(
    before: Sample,
    samples: list[Sample],
    after: Sample,
    wrong: list[str],
    status: int,
    errors: list[str],
) -> dict[str, Any]:
    """The report, with everything that is against a bound in `failures`."""
    steady = [sample for sample in samples if sample.at_s > samples[-1].at_s / 4]
    times = [sample.at_s for sample in steady]
    rows: dict[str, dict[str, Any]] = {}
    failures = [f"wrong: {what}" for what in sorted(set(wrong))]
    failures += [f"in the log: {event}" for event in sorted(set(errors))]
    if status:
        failures.append(f"the server ended with status {status}")
    for name, bound in SLOPES.items():
        slope = Slope.of(times, [getattr(sample, name) for sample in steady])
        left = getattr(after, name) - getattr(before, name)
        rows[name] = {
            "start": getattr(steady[0], name),
            "end": getattr(steady[-1], name),
            "slope_an_hour": slope.an_hour,
            "standard_error": slope.error,
            "bound_an_hour": bound,
            "left_at_rest": left,
        }
        grown = slope.an_hour * (times[-1] - times[0]) / 3600
        if slope.exceeds(bound) and grown > SETTLING[name]:
            failures.append(f"{name} grows by {slope.an_hour:.0f} an hour")
        if left > LEFT[name]:
            failures.append(f"{left:.0f} {name} are left at rest")
    late, lag_ms = lateness(samples[0], samples[-1])
    if late > LAG_SHARE:
        failures.append(f"{late:.1%} of looks found the loop more than {1000 * LAG_S:g} ms late")
    minutes = (samples[-1].at_s - samples[0].at_s) / 60
    name = "loop_long_passes_total"
    long_passes = (samples[-1].raw[name] - samples[0].raw[name]) / minutes
    if long_passes > LONG_PASSES_A_MINUTE:
        failures.append(f"{long_passes:.1f} times a minute the loop was more than 50 ms late")
    return {
        "passed": not failures,
        "failures": failures,
        "figures": rows,
        "lag": {"later_than_20_ms": late, "ms_at_most": lag_ms},
        "long_passes_a_minute": long_passes,
        "sessions_open": statistics.fmean(sample.sessions for sample in steady),
        "samples": len(samples),
    }


def show(report: dict[str, Any]) -> str:
    """The report for people."""
    head = ["", "start", "end", "an hour", "+-", "bound", "left at rest"]
    rows = [
        [
            f"{name} {UNITS[name]}".strip(),
            f"{row['start']:,.1f}",
            f"{row['end']:,.1f}",
            f"{row['slope_an_hour']:+,.1f}",
            f"{row['standard_error']:,.1f}",
            f"{row['bound_an_hour']:,.0f}".replace("inf", "-"),
            f"{row['left_at_rest']:+,.1f}",
        ]
        for name, row in report["figures"].items()
    ]
    lag = ", ".join(f"{name} < {ms:g} ms" for name, ms in report["lag"]["ms_at_most"].items())
    busy = report["server_waited_for_a_core"] > BUSY_SHARE
    return "\n".join(
        [
            table(head, rows),
            "",
            f"event loop late: {lag}; more than 20 ms: {report['lag']['later_than_20_ms']:.2%}",
            f"more than 50 ms late: {report['long_passes_a_minute']:.1f} times a minute",
            f"{report['sessions_open']:.0f} sessions open for {report['minutes']:g} minutes",
            f"the server used {report['server_share_of_a_core']:.0%} of a core",
            f"it waited for a core {report['server_waited_for_a_core']:.1%} of the time",
            ", ".join(f"{number} {what}" for what, number in report["happened"].items()),
            *(["THE MACHINE WAS BUSY: how late the loop was says little."] if busy else []),
            *(f"FAILED: {what}" for what in report["failures"]),
            "passed" if report["passed"] else "failed",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--sessions", type=int, default=60, help="at a time")
    parser.add_argument("--dry", action="store_true", help="write no results")
    options = parser.parse_args()
    report = trio.run(soak, options.sessions, options.minutes * 60)
    print(show(report))
    if not options.dry:
        about = {"machine": machine(), "versions": versions("trio", "hypercorn", "quart-trio")}
        save(RESULTS / "soak.json", about | json.loads(json.dumps(report)))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
