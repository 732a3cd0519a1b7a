"""The servers that the web tier is compared with, and ours with an engine that costs nothing.

    python -m bench.web_tier_servers NAME PORT COUNTERS [--answer]

Each takes WebSocket messages on `/ws`. It counts them, a counter of 8 bytes a connection in the
file COUNTERS, which the load sees without a system call of the server; with `--answer` it answers
each one with a text of the size of one of our deltas.

Ours is the whole server, from its listener to the engine's port: what is missing is the engine. The
others do nothing with a message: they are what a WebSocket library costs.

A connection finds its counter by its number: in the query, or, at ours, in its session id.
"""

from __future__ import annotations

import argparse
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from bench.processes import HOST
from voxtral_actors.engine.port import Deliver, EngineInfo, Released, StreamSpec, Text
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE
from voxtral_actors.utterance.timing import Timing

OURS = "voxtral-actors"
KEY = "bench-only"
ANSWER = (
    '{"type":"transcription.delta","session_id":"s0","request_id":"r0",'
    '"payload":{"delta":" word","audio_ms":1000}}'
)
Counters = memoryview


def open_counters(path: Path) -> Counters:
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")


# --- Ours ------------------------------------------------------------------------------------


class NullStream:
    """Swallows audio. It says how far it is with every step when it answers, else once a second,
    as any engine must, or the server would take it for one that has stalled."""

    def __init__(self, deliver: Deliver, count: Callable[[], None], *, answer: bool) -> None:
        self._deliver = deliver
        self._count = count
        self._every = 0 if answer else SAMPLE_RATE
        self._text = " word" if answer else ""
        self._fed = self._told = 0

    def feed(self, pcm: bytes) -> None:
        self._count()
        self._fed += len(pcm) // BYTES_PER_SAMPLE
        if self._fed - self._told >= self._every:
            self._told = self._fed
            self._deliver(Text(self._text, self._fed))

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        self._deliver(Released())


class NullBackend:
    """An engine without a recogniser."""

    def __init__(self, counters: Counters, *, answer: bool) -> None:
        self._counters = counters
        self._answer = answer

    async def run(self, *, task_status: trio.TaskStatus[EngineInfo]) -> None:
        task_status.started(EngineInfo("null", "null", 100_000, 0, timing=Timing(lag=0)))
        await trio.sleep_forever()

    def open(self, spec: StreamSpec, deliver: Deliver) -> NullStream:
        counters = self._counters
        number = int(spec.label.partition("/")[0].removeprefix("s"))

        def count() -> None:
            counters[number] += 1

        return NullStream(deliver, count, answer=self._answer)


def ours(port: int, counters: Counters, *, answer: bool) -> None:
    from voxtral_actors import logs
    from voxtral_actors.engine.actor import EngineActor
    from voxtral_actors.server import app, collector
    from voxtral_actors.settings import load

    settings = load(
        {
            "VOXTRAL_API_KEY": KEY,
            "MAX_CONCURRENT_CONNECTIONS": "100000",
            "VOXTRAL_HOST": HOST,
            "VOXTRAL_PORT": str(port),
            "VOXTRAL_ENGINE": "sphinx",  # replaced
            "WS_IDLE_TIMEOUT_S": "0",
        }
    )
    logs.configure("warning", "text", ())
    collector.look_seldom()  # as `app.main` does for its process
    engine = EngineActor(lambda: NullBackend(counters, answer=answer))

    async def main() -> None:
        await app.run(settings, engine=engine)

    trio.run(main)


# --- The others ------------------------------------------------------------------------------


def uvicorn_websockets(port: int, counters: Counters, *, answer: bool) -> None:
    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        number = int(scope["query_string"])
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            counters[number] += 1
            if answer:
                await send({"type": "websocket.send", "text": ANSWER})

    uvicorn.run(
        app,
        host=HOST,
        port=port,
        ws="websockets",
        loop="uvloop",
        lifespan="off",
        log_level="error",
        backlog=4096,
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # the load reads no pings, and would be cut after 40 s
    )


def trio_websockets(port: int, counters: Counters, *, answer: bool) -> None:
    import trio_websocket

    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        number = int(request.path.partition("?")[2])
        socket = await request.accept()
        try:
            while True:
                await socket.get_message()
                counters[number] += 1
                if answer:
                    await socket.send_message(ANSWER)
        except trio_websocket.ConnectionClosed:
            pass

    trio.run(trio_websocket.serve_websocket, serve, HOST, port, None)


def hypercorn_quart(port: int, counters: Counters, *, answer: bool) -> None:
    from hypercorn.config import Config
    from hypercorn.trio import serve
    from quart import websocket
    from quart_trio import QuartTrio

    app = QuartTrio(__name__)

    @app.websocket("/ws")
    async def ws() -> None:
        number = int(websocket.query_string)
        while True:
            await websocket.receive()
            counters[number] += 1
            if answer:
                await websocket.send(ANSWER)

    config = Config()
    config.bind = [f"{HOST}:{port}"]
    config.errorlog = None
    config.backlog = 4096
    trio.run(serve, app, config)


SERVERS: dict[str, Callable[..., None]] = {
    OURS: ours,
    "uvicorn+websockets": uvicorn_websockets,
    "trio-websocket": trio_websockets,
    "hypercorn+quart-trio": hypercorn_quart,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=SERVERS)
    parser.add_argument("port", type=int)
    parser.add_argument("counters", type=Path)
    parser.add_argument("--answer", action="store_true")
    options = parser.parse_args()
    SERVERS[options.name](options.port, open_counters(options.counters), answer=options.answer)


if __name__ == "__main__":
    main()
