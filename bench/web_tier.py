"""What a message costs in the web tier alone: from the socket to the engine's port, no engine.

    python -m bench.web_tier            # all of it, about five minutes on two cores
    python -m bench.web_tier --quick    # a glance

The load is a process of its own with frames made beforehand (`raw_websocket.py`). It is a closed
loop: each connection sends 80 ms of audio, as base64 in JSON or binary, and the next one when the
server has taken that; so each message comes alone, as it does live. *Taken* is seen in counters in
shared memory that the engine's port increments, so that it costs the server no system call; in a
second series the server answers each message with a delta, and that is waited for.

The other servers (`web_tier_servers.py`) get the very same messages in the same run, in alternating
rounds, and do nothing with them: neither JSON, nor base64, nor sessions.

Rounds are short, a fraction of a second for each server: what is divided was measured in the same
second, and a machine slows down for longer than that.

CPU time of the server process is what counts here, user and system: it hardly changes when the
machine does other things too.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

from bench import figures
from bench.figures import Spread
from bench.processes import cpu_seconds, free_port, memory_bytes, python, serving
from bench.web_tier_load import Feeder
from bench.web_tier_servers import OURS, SERVERS, open_counters

RESULT = figures.RESULTS / "web_tier.json"
KINDS = ("text", "binary")
LEAST_BUSY = 0.8
"""Share of a core: a server that computes less than this had to wait for the load, or for a core.
Then more messages come alone than at full load, and each is dearer."""
MOST = 8192
"""Connections at once, at most."""


@attrs.frozen
class Size:
    """How much is measured."""

    rounds: int
    growth_rounds: int
    messages: int
    connections: int
    growth: tuple[int, ...]
    idle: int


FULL = Size(
    rounds=10, growth_rounds=16, messages=3_000, connections=32, growth=(8, 512), idle=5_000
)
QUICK = Size(rounds=2, growth_rounds=2, messages=4_000, connections=32, growth=(8, 512), idle=500)


@contextmanager
def running(name: str, *, answer: bool) -> Iterator[Feeder]:
    """One of the servers, with its counters; nobody is connected."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counters"
        path.write_bytes(bytes(8 * MOST))
        port = free_port()
        options = ["--answer"] if answer else []
        command = python("bench.web_tier_servers", name, port, path, *options)
        ready = "/readyz" if name == OURS else None
        with serving(name, command, port, ready=ready) as server:
            yield Feeder(server, open_counters(path), answer=answer)


def compare(size: Size, busy: list[float], *, answer: bool) -> dict[str, dict[str, list[float]]]:
    """kind -> server -> microseconds a message, one figure a round; `busy` is as in `Feeder`."""
    costs: dict[str, dict[str, list[float]]] = {kind: {n: [] for n in SERVERS} for kind in KINDS}
    with ExitStack() as stack:
        feeders = [stack.enter_context(running(name, answer=answer)) for name in SERVERS]
        for feeder in feeders:
            feeder.connect(size.connections)
            stack.callback(feeder.close)
        for _ in range(size.rounds):
            for kind in KINDS:
                for feeder in feeders:
                    costs[kind][feeder.server.name].append(feeder.cost(kind, size.messages))
        busy += [share for feeder in feeders for share in feeder.busy]
    return costs


def growth(size: Size, busy: list[float]) -> dict[str, dict[int, list[float]]]:
    """kind -> connections -> microseconds a message of ours, one figure a round. Each number has a
    server of its own, so that they are measured right after one another."""
    costs: dict[str, dict[int, list[float]]] = {k: {n: [] for n in size.growth} for k in KINDS}
    with ExitStack() as stack:
        feeders = {n: stack.enter_context(running(OURS, answer=False)) for n in size.growth}
        for connections, feeder in feeders.items():
            feeder.connect(connections)
            stack.callback(feeder.close)
        for _ in range(size.growth_rounds):
            for kind in KINDS:
                for connections, feeder in feeders.items():
                    costs[kind][connections].append(feeder.cost(kind, size.messages))
        busy += [share for feeder in feeders.values() for share in feeder.busy]
    return costs


def idle(connections: int) -> dict[str, float]:
    """What connections cost that say nothing."""
    with running(OURS, answer=False) as feeder:
        feeder.connect(16)  # what the first ones load is no cost of a connection
        feeder.close()
        time.sleep(0.5)
        pid = feeder.server.pid
        memory, cpu = memory_bytes(pid), cpu_seconds(pid)
        feeder.connect_idle(connections)
        connected = cpu_seconds(pid)
        time.sleep(1.0)
        grown = memory_bytes(pid) - memory
        before = cpu_seconds(pid)
        time.sleep(5.0)
        share = (cpu_seconds(pid) - before) / 5.0
        feeder.close()
    return {
        "connections": connections,
        "kb_each": grown / connections / 1024,
        "connect_cpu_us_each": 1e6 * (connected - cpu) / connections,
        "idle_share_of_a_core": share,
    }


def allow_files(wanted: int) -> None:
    """Raise the limit of open files, which the servers inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


# --- The report ------------------------------------------------------------------------------


def report(size: Size) -> dict[str, Any]:
    found: dict[str, Any] = {
        "machine": figures.machine(),
        "versions": figures.versions(
            "trio", "hypercorn", "quart", "quart-trio", "wsproto", "msgspec", "pybase64",
            "trio-websocket", "uvicorn", "uvloop", "websockets",
        ),
        "size": attrs.asdict(size),
    }  # fmt: skip
    busy: dict[str, list[float]] = {"swallowed": [], "answered": [], "growth": []}
    for name, answer in (("swallowed", False), ("answered", True)):
        costs = compare(size, busy[name], answer=answer)
        print(show_comparison(name, costs), end="\n\n", flush=True)
        found[name] = {
            kind: {
                server: {
                    "us": Spread.of(values),
                    "sessions_a_core": 1e6 / (12.5 * Spread.of(values).median),
                    "ours_by_this": figures.ratio(by_server[OURS], values),
                }
                for server, values in by_server.items()
            }
            for kind, by_server in costs.items()
        }
    grown = growth(size, busy["growth"])
    print(show_growth(grown), end="\n\n", flush=True)
    first, last = size.growth[0], size.growth[-1]
    found["growth"] = {
        kind: {
            "us": {number: Spread.of(values) for number, values in costs_by.items()},
            "last_by_first": figures.ratio(costs_by[last], costs_by[first]),
        }
        for kind, costs_by in grown.items()
    }
    found["idle"] = idle(size.idle)
    print("idle connections:", {k: round(v, 3) for k, v in found["idle"].items()})
    found["server_busy"] = {name: Spread.of(shares) for name, shares in busy.items()}
    for name, shares in busy.items():
        print(show_busy(name, shares))
    return found


def show_busy(name: str, shares: list[float]) -> str:
    idle = sum(share < LEAST_BUSY for share in shares)
    limit = f"; in {idle} of {len(shares)} the load, or the machine, was the limit" if idle else ""
    return f"{name}: the server computed {Spread.of(shares).show(2)} of the time{limit}"


def show_comparison(name: str, costs: dict[str, dict[str, list[float]]]) -> str:
    rows = [
        [
            server,
            *(Spread.of(costs[kind][server]).show() for kind in KINDS),
            *(figures.ratio(costs[kind][OURS], costs[kind][server]).show(2) for kind in KINDS),
        ]
        for server in SERVERS
    ]
    head = [f"us a message, {name}", *KINDS, *(f"ours by this, {kind}" for kind in KINDS)]
    return figures.table(head, rows)


def show_growth(costs: dict[str, dict[int, list[float]]]) -> str:
    numbers = list(next(iter(costs.values())))
    rows = [
        [
            kind,
            *(Spread.of(by_number[number]).show() for number in numbers),
            figures.ratio(by_number[numbers[-1]], by_number[numbers[0]]).show(2),
        ]
        for kind, by_number in costs.items()
    ]
    return figures.table(["us a message at", *map(str, numbers), "last by first"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a glance; nothing is saved")
    options = parser.parse_args()
    allow_files(2 * MOST)
    found = report(QUICK if options.quick else FULL)
    if not options.quick:
        figures.save(RESULT, found)


if __name__ == "__main__":
    main()
