"""How long `cancel` takes when everybody cancels: the answer, and the engine slot.

    python -m bench.cancel_latency --sessions 500

A server of its own process (the real one, with the scripted engine, which lets go of a stream at
once) has so many sessions open, each with an utterance that has been spoken and not finalised. Then
all of them send `cancel`: at one moment, or evenly over one second. Measured is, on the clock that
both processes share, from the send of each `cancel` to the arrival of its `cancelled`, and from the
first send to the moment at which no engine slot is taken any more. The clients are one plain loop
over sockets, so that their own work hardly counts.

The server's CPU time is that of one such storm, the slots' release included: it is what remains of
the figures on a machine that has other things to do.

At one moment the answers queue behind each other: the last one waits for the work of all. What the
engine itself takes to let go comes on top of the slot's time.
"""

from __future__ import annotations

import argparse
import os
import resource
import selectors
import time
from contextlib import AsyncExitStack
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median

import trio
from trio.testing import wait_all_tasks_blocked

from bench.figures import RESULTS, machine, percentiles, save, table, versions
from bench.processes import cpu_seconds
from tests.engine.scripted import Script, Scripted, speech
from tests.server.wire_client import KEY, Client, envelope, websocket
from tests.server.wire_helpers import TEXT, frame
from voxtral_actors import logs
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.protocol.events import SessionCreated
from voxtral_actors.server.app import Running, run
from voxtral_actors.settings import load

ROUNDS = 5
SPOKEN_S = 0.4
POLL_S = 0.001
"""Between two looks of the server at its slots."""
QUIET_S = 0.05
"""When the server has done nothing for so long, all that was heard has been told."""
LIMIT_S = 60.0
SHAPES = {"at one moment": 0.0, "over one second": 1.0}


def serve(pipe: Connection, sessions: int) -> None:
    """The server's process. It tells its port, then the time at which its slots fall to zero."""
    settings = load({
        "VOXTRAL_API_KEY": KEY,
        "MAX_CONCURRENT_CONNECTIONS": f"{sessions + 1}",
        "VOXTRAL_PORT": "0",
        "WS_MAX_CANCELS_PER_WINDOW": "0",
        "WS_MAX_MESSAGES_PER_WINDOW": "0",
    })  # fmt: skip
    logs.configure("warning")
    scripted = Scripted(Script(slots=sessions))
    engine = EngineActor(scripted.backend)
    spoken = SPOKEN_S * SAMPLE_RATE

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def server(*, task_status: trio.TaskStatus[Running]) -> None:
                await run(settings, engine=engine, task_status=task_status)

            running: Running = await nursery.start(server)
            await engine.wait_ready()
            pipe.send(running.port)
            for _ in range(ROUNDS * len(SHAPES)):
                await until_taken(sessions)
                while any(part.consumed < spoken for part in scripted.streams[-sessions:]):  # noqa: ASYNC110
                    await trio.sleep(POLL_S)
                await wait_all_tasks_blocked(QUIET_S)
                pipe.send("heard")
                await until_taken(0)
                pipe.send(time.monotonic())
            await trio.to_thread.run_sync(pipe.recv)
            nursery.cancel_scope.cancel(reason="measured")

    async def until_taken(count: int) -> None:
        while engine.statistics().slots_taken != count:  # noqa: ASYNC110 - nobody signals it
            await trio.sleep(POLL_S)

    trio.run(main)


def storm(clients: list[Client], name: str, over_s: float) -> tuple[float, list[float]]:
    """All cancel; the moment of the first send, and the seconds that each answer took."""
    message = frame(TEXT, envelope("cancel", name).encode())
    answer = b'"type":"cancelled"'
    sockets = [client.raw.stream.socket.fileno() for client in clients]  # type: ignore[attr-defined]
    sent: dict[int, float] = {}
    heard = dict.fromkeys(sockets, b"")
    took: list[float] = []
    with selectors.DefaultSelector() as selector:
        for number in sockets:
            selector.register(number, selectors.EVENT_READ)
        first = time.monotonic()
        pending = [(first + over_s * i / len(sockets), number) for i, number in enumerate(sockets)]
        pending.reverse()
        while len(took) < len(sockets):
            now = time.monotonic()
            while pending and pending[-1][0] <= now:
                _, number = pending.pop()
                sent[number] = time.monotonic()
                os.write(number, message)
            for key, _ in selector.select(0.0005 if pending else LIMIT_S):
                heard[key.fd] += os.read(key.fd, 65_536)
                if answer in heard[key.fd]:
                    took.append(time.monotonic() - sent[key.fd])
                    heard[key.fd] = b""
    return first, took


async def measure(port: int, pipe: Connection, sessions: int, pid: int) -> list[list[str | float]]:
    rows: list[list[str | float]] = []
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(sessions):
            client = await stack.enter_async_context(websocket(port, f"/ws?api_key={KEY}"))
            await client.hear(SessionCreated)
            clients.append(client)
        for shape, over_s in SHAPES.items():
            answers: list[float] = []
            slots: list[float] = []
            work: list[float] = []
            for number in range(ROUNDS):
                name = f"{shape}-{number}"
                for client in clients:
                    await client.start(name)
                    await client.send(speech(SPOKEN_S, number))
                await trio.to_thread.run_sync(pipe.recv)
                before = cpu_seconds(pid)
                first, took = storm(clients, name, over_s)
                answers += took
                free: float = await trio.to_thread.run_sync(pipe.recv)
                slots.append(free - first - over_s)
                work.append(cpu_seconds(pid) - before)
            seconds = [*percentiles(answers).values(), max(answers), max(slots), median(work)]
            rows.append([shape, *(1000 * value for value in seconds)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="How long cancelling takes when everybody does.")
    parser.add_argument("--sessions", type=int, default=500)
    sessions = parser.parse_args().sessions
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2 * sessions + 200), hard), hard))
    ours, theirs = get_context("spawn").Pipe()
    server = get_context("spawn").Process(target=serve, args=(theirs, sessions))
    server.start()
    try:
        rows = trio.run(measure, ours.recv(), ours, sessions, server.pid)
    finally:
        ours.send("done")
        server.join(LIMIT_S)
    head = ("all cancel", "p50 ms", "p95 ms", "p99 ms", "max ms", "slots free ms", "server CPU ms")
    print(table(head, [[f"{v:.1f}" if isinstance(v, float) else v for v in row] for row in rows]))
    report = {"sessions": sessions, "rounds": ROUNDS, "rows": rows}
    save(
        RESULTS / "cancel_latency.json",
        {
            **report,
            "head": head,
            "machine": machine(),
            "versions": versions("trio", "hypercorn", "quart-trio"),
        },
    )


if __name__ == "__main__":
    main()
