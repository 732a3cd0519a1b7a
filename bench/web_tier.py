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

CPU time of the server process is what counts here, user and system: it hardly changes when the
machine does other things too.
"""

from __future__ import annotations

import argparse
import resource
import selectors
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pybase64

from bench import figures
from bench.figures import Spread
from bench.processes import Server, cpu_seconds, free_port, memory_bytes, python, serving
from bench.raw_websocket import BINARY, TEXT, RawWebSocket, frame
from bench.sounds import speech
from bench.web_tier_servers import KEY, SERVERS, Counters, open_counters

OURS = "voxtral-actors"
RESULT = figures.RESULTS / "web_tier.json"
CHUNK_BYTES = 2560
KINDS = ("text", "binary")
MOST = 8192
"""Connections at once, at most."""
WARM_UP = 2_000
"""Messages before those that count."""
NAP_S = 50e-6
"""When no connection may send: the server is busy, and the machine's other core is not ours."""
STUCK_S = 30.0
GOALS = {"text": 200.0, "binary": 130.0}  # microseconds
IDLE_GOAL_KB = 80.0
GROWTH_GOAL = 1.2


@attrs.frozen
class Size:
    """How much is measured."""

    rounds: int
    messages: int
    connections: int
    growth: tuple[int, ...]
    idle: int


FULL = Size(rounds=5, messages=8_000, connections=32, growth=(8, 64, 512), idle=5_000)
QUICK = Size(rounds=2, messages=4_000, connections=32, growth=(8, 512), idle=500)


class Feeder:
    """The connections to one server, and the closed loop over them."""

    def __init__(self, server: Server, counters: Counters, *, answer: bool) -> None:
        self.server = server
        self._counters = counters
        self._answer = answer
        self._sockets: list[RawWebSocket] = []

    def connect(self, connections: int) -> None:
        ours = self.server.name == OURS
        for number in range(connections):
            socket = RawWebSocket(self.server.port, "/ws" if ours else f"/ws?{number}", KEY)
            self._sockets.append(socket)
            while ours and not socket.answers:  # session.created
                socket.receive()
            if ours:
                socket.send(frame(TEXT, _message("input_audio_buffer.commit", number)))
            self._counters[number] = 0

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()
        self._sockets.clear()

    def cost(self, kind: str, messages: int) -> float:
        """Microseconds of the server's CPU for each of `messages`."""
        frames = [_audio_frame(kind, number) for number in range(len(self._sockets))]
        loop = self._answered if self._answer else self._swallowed
        loop(frames, min(WARM_UP, messages))
        before = cpu_seconds(self.server.pid)
        sent = loop(frames, messages)
        return 1e6 * (cpu_seconds(self.server.pid) - before) / sent

    def _swallowed(self, frames: Sequence[bytes], messages: int) -> int:
        """Send until `messages` are out, each when the connection's last one has been counted."""
        counters, numbers = self._counters, range(len(frames))
        due = [counters[number] for number in numbers]
        sent, limit = 0, time.monotonic() + STUCK_S
        while sent < messages:
            before = sent
            for number in numbers:
                if counters[number] >= due[number]:
                    due[number] += 1
                    sent += 1
                    self._sockets[number].send(frames[number])
            if sent == before:
                time.sleep(NAP_S)
                _check(limit)
        while any(counters[number] < due[number] for number in numbers):
            time.sleep(NAP_S)
            _check(limit)
        return sent

    def _answered(self, frames: Sequence[bytes], messages: int) -> int:
        """The same, each when the last one's answer has come."""
        sent = done = 0
        with selectors.EpollSelector() as selector:
            for number, socket in enumerate(self._sockets):
                socket.answers = 0
                selector.register(socket.socket, selectors.EVENT_READ, number)
                socket.send(frames[number])
                sent += 1
            while done < sent:
                ready = selector.select(STUCK_S)
                if not ready:
                    raise TimeoutError("the server answers no more")
                for key, _ in ready:
                    socket = self._sockets[key.data]
                    socket.receive()
                    done += socket.answers
                    if socket.answers and sent < messages:
                        socket.send(frames[key.data])
                        sent += 1
                    socket.answers = 0
        return sent


def _check(limit: float) -> None:
    if time.monotonic() > limit:
        raise TimeoutError("the server takes no more messages")


def _message(kind: str, number: int, **payload: object) -> bytes:
    ids = {"type": kind, "session_id": f"s{number}", "request_id": "r0"}
    return msgspec.json.encode(ids | {"payload": payload})


def _audio_frame(kind: str, number: int) -> bytes:
    chunk = speech()[SPOKEN_AT : SPOKEN_AT + CHUNK_BYTES]
    if kind == "binary":
        return frame(BINARY, chunk)
    audio = pybase64.b64encode_as_string(chunk)
    return frame(TEXT, _message("input_audio_buffer.append", number, audio=audio))


SPOKEN_AT = 64_000
"""Two seconds into the speech somebody speaks."""


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


def compare(size: Size, *, answer: bool) -> dict[str, dict[str, list[float]]]:
    """kind -> server -> microseconds a message, one figure a round."""
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
    return costs


def growth(size: Size) -> dict[str, dict[int, list[float]]]:
    """kind -> connections -> microseconds a message of ours, one figure a round."""
    costs: dict[str, dict[int, list[float]]] = {k: {n: [] for n in size.growth} for k in KINDS}
    with running(OURS, answer=False) as feeder:
        for _ in range(size.rounds):
            for connections in size.growth:
                feeder.connect(connections)
                for kind in KINDS:
                    costs[kind][connections].append(feeder.cost(kind, size.messages))
                feeder.close()
                time.sleep(0.5)  # for the server to notice
    return costs


def idle(connections: int) -> dict[str, float]:
    """What connections cost that say nothing."""
    with running(OURS, answer=False) as feeder:
        feeder.connect(16)  # what the first ones load is no cost of a connection
        feeder.close()
        time.sleep(0.5)
        pid = feeder.server.pid
        memory, cpu = memory_bytes(pid), cpu_seconds(pid)
        _connect_only(feeder, connections)
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


def _connect_only(feeder: Feeder, connections: int) -> None:
    for _ in range(connections):
        socket = RawWebSocket(feeder.server.port, "/ws", KEY)
        feeder._sockets.append(socket)
        while not socket.answers:
            socket.receive()


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
    for name, answer in (("swallowed", False), ("answered", True)):
        costs = compare(size, answer=answer)
        print(show_comparison(name, costs), end="\n\n", flush=True)
        found[name] = {
            kind: {
                server: {
                    "us": Spread.of(values),
                    "sessions_a_core": 1e6 / (12.5 * figures.statistics.median(values)),
                    "ours_by_this": figures.ratio(by_server[OURS], values),
                }
                for server, values in by_server.items()
            }
            for kind, by_server in costs.items()
        }
    grown = growth(size)
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
    return found


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
