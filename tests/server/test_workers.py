"""No worker process outlives its utterance, however many connections end, and in whatever way."""

from __future__ import annotations

import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import pytest
import trio

from tests.server.harness import until
from tests.server.server_process import server_process
from tests.server.wire_client import Client
from voxtral_actors.engine.sphinx_limits import WARM
from voxtral_actors.protocol.events import Cancelled, Done, SessionEnd

pytest.importorskip("pocketsphinx", reason="the embedded engine is not installed")

CONNECTIONS = 40
SILENCE = bytes(32_000)


async def end(client: Client) -> None:
    await client.say("end")
    await client.hear_past_deltas(Cancelled)
    await client.hear(SessionEnd)
    assert (await client.closed())[0] == 1000


async def cancel(client: Client) -> None:
    await client.say("cancel")
    await client.hear_past_deltas(Cancelled)


async def hang_up(client: Client) -> None:
    await trio.aclose_forcefully(client.raw.stream)


WAYS: list[Callable[[Client], Awaitable[None]]] = [
    end,
    cancel,
    Client.close,
    Client.reset,
    hang_up,
]


async def test_p5_no_worker_is_left_of_40_connections() -> None:
    """Two of them find a warm worker; the others wait for one, and may leave in between."""
    ways = WAYS * (CONNECTIONS // len(WAYS))
    random.Random(11).shuffle(ways)
    with trio.fail_after(60), ExitStack() as files:
        async with server_process(MAX_CONCURRENT_CONNECTIONS=str(CONNECTIONS)) as server:

            async def life(way: Callable[[Client], Awaitable[None]]) -> None:
                async with server.session() as client:
                    await client.start()
                    await client.send(SILENCE)
                    await client.alive()
                    server.watch_workers(files)
                    await way(client)

            async with trio.open_nursery() as nursery:
                for way in ways:
                    nursery.start_soon(life, way)
            while b"engine_slots_taken 0.0" not in (await server.http("/metrics")).body:
                pass  # the last of them may still be on their way out
            assert server.watch_workers(files) > WARM, "there were others before"
            await until(lambda: len(server.living_workers()) <= WARM, "workers are left")
            ended = [line for line in server.log if line["event"] == "connection.ended"]
            assert len(ended) == CONNECTIONS

            async with server.session() as client:  # and the next one is served
                await client.utter(SILENCE)
                assert (await client.hear(Done)).usage.audio_seconds == 1
            server.watch_workers(files)
            server.signal(signal.SIGTERM)
            assert await server.exit_status() == 0
            await server.workers_ended()
            assert not server.living_workers()
        assert [line["event"] for line in server.log if line["level"] == "error"] == []
