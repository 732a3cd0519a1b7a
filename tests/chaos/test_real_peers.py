"""P1, P3 and P4 against a real server process: peers that flood, stop reading, or fall silent."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.chaos.real_harness import calm, figures, scripted_server
from tests.engine.script import speech, transcript
from tests.server.server_process import ServerProcess
from tests.server.wire_client import KEY, Client, deaf_client, envelope
from tests.server.wire_helpers import BINARY, PING, PONG, TEXT, frame
from voxtral_actors.limits import METRICS_AGE_S, PEER_SILENCE_S

MANY = 5_000
RSS = "process_resident_memory_bytes"


Figures = dict[str, float]


async def once(server: ServerProcess, holds: Callable[[Figures], bool]) -> Figures:
    """The figures, at the first look at which something holds."""
    now = await figures(server)
    while not holds(now):
        await trio.sleep(METRICS_AGE_S)
        now = await figures(server)
    return now


@asynccontextmanager
async def reading(client: Client) -> AsyncIterator[list[bytes]]:
    """What the server sends is read beside what the block sends."""
    heard: list[bytes] = []

    async def read() -> None:
        while True:
            heard.append((await client.raw.frame(skip=()))[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        yield heard
        nursery.cancel_scope.cancel()


async def test_p1_floods_disturb_nobody(tmp_path: Path) -> None:
    """Pings of both kinds, commands over every limit, and garbage, as fast as they can be sent."""
    ping = frame(PING, b"x" * 100)
    floods = {
        "websocket pings": ping,
        "unasked pongs": frame(PONG, b"x" * 100),
        "pings": frame(TEXT, envelope("ping").encode()),
        "cancels": frame(TEXT, envelope("cancel").encode()),
        "starts": frame(TEXT, envelope("input_audio_buffer.commit").encode()),
        "updates": frame(TEXT, envelope("session.update").encode()),
        "garbage": frame(TEXT, b"{" * 100),
        "audio for nobody": frame(BINARY, bytes(100)),
    }

    async def flood(server: ServerProcess, message: bytes) -> None:
        async with server.session() as client, reading(client):
            for _ in range(MANY // 100):
                await client.raw.send(message * 100)

    with trio.fail_after(60):
        async with (
            scripted_server(
                tmp_path, MAX_CONCURRENT_CONNECTIONS="16", WS_MAX_BAD_MESSAGES="0"
            ) as server,
            calm(server),
            trio.open_nursery() as nursery,
        ):
            for message in floods.values():
                nursery.start_soon(flood, server, message)


async def test_p10_audio_faster_than_live_is_all_heard(tmp_path: Path) -> None:
    """Five minutes of speech in three connections, as fast as the sockets take it."""
    pcm = speech(100)

    async def speak(server: ServerProcess) -> None:
        async with server.session() as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.utter, pcm)
            text, _ = await client.transcript("r1")
            assert text == transcript(pcm)

    with trio.fail_after(60):
        async with (
            scripted_server(tmp_path, MAX_CONCURRENT_CONNECTIONS="4") as server,
            calm(server),
            trio.open_nursery() as nursery,
        ):
            for _ in range(3):
                nursery.start_soon(speak, server)


async def test_p3_clients_that_do_not_read_are_closed_and_cost_little(tmp_path: Path) -> None:
    count = 20
    sizes: list[float] = []

    def all_are_closed(now: Figures) -> bool:
        sizes.append(now[RSS])
        return now.get("connections_ended_total{client_fault,slow_consumer}") == count

    with trio.fail_after(60):
        async with scripted_server(
            tmp_path, MAX_CONCURRENT_CONNECTIONS="32", WS_WRITE_DEADLINE_S="2"
        ) as server:
            before = await figures(server)
            async with calm(server), AsyncExitStack() as deaf, trio.open_nursery() as nursery:

                async def stop_reading() -> None:
                    await deaf.enter_async_context(deaf_client(await server.port()))

                for _ in range(count):
                    nursery.start_soon(stop_reading)
                began = trio.current_time()
                await once(server, all_are_closed)
                took = trio.current_time() - began
            more = (max(sizes) - before[RSS]) / 2**20
            print(f"{count} came and were closed in {took:.1f} s, {more:.1f} MiB more at most")
            assert more < count * 4


CLIENT = """
import socket, sys
from tests.server.wire_helpers import HOST, upgrade_request
peer = socket.create_connection((HOST, int(sys.argv[1])))
peer.sendall(upgrade_request("/ws?api_key=" + sys.argv[2]))
print(len(peer.recv(65536)), flush=True)
while peer.recv(65536):
    pass
"""


@asynccontextmanager
async def stopped_client(port: int) -> AsyncIterator[None]:
    """A process with a session that is not given the processor any more."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", CLIENT, str(port), KEY], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.receive_some()
        process.send_signal(signal.SIGSTOP)
        yield
    finally:
        process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()


@pytest.mark.chaos
async def test_p4_peers_that_answer_no_ping_are_cut(tmp_path: Path) -> None:
    """A process that is stopped, one that reads and never answers, one that does not even read.

    The kernel acknowledges what the server sends to each of them, and an utterance is open.
    """
    with trio.fail_after(60 + 2 * PEER_SILENCE_S):
        async with (
            scripted_server(tmp_path, WS_IDLE_TIMEOUT_S="600") as server,
            calm(server),
            stopped_client(await server.port()),
            server.session(),
            server.session() as mute,
            trio.open_nursery() as nursery,
        ):
            await mute.start()
            nursery.start_soon(mute.raw.gone)  # it reads, pings too
            began = trio.current_time()
            await once(server, lambda now: now["connections_open"] < 4)
            assert trio.current_time() - began > PEER_SILENCE_S - 5
            now = await once(server, lambda now: now["connections_open"] == 1)
            assert trio.current_time() - began < PEER_SILENCE_S + 15
            assert now["connections_ended_total{client_fault,peer_silent}"] == 3
