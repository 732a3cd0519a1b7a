"""HAProxy's configuration: taken by HAProxy, and a deploy behind it that nobody notices.

The deploy runs the real HAProxy with the file as it is, but for its addresses, in front of two real
server processes with the embedded engine.
"""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.deploy.balancer import FILE, TEXT, haproxy
from tests.deploy.tools import judged, program
from tests.server.harness import request
from tests.server.server_process import server_process
from tests.server.wire_client import KEY, Client, websocket
from voxtral_actors import limits
from voxtral_actors.protocol.events import Error, SessionCreated
from voxtral_actors.settings import load

SILENCE = bytes(32_000)
UNITS = {"s": 1, "m": 60}


def seconds(directive: str) -> float:
    match = re.search(rf"^    {directive} (\d+)([sm])$", TEXT, re.MULTILINE)
    assert match, directive
    return int(match[1]) * UNITS[match[2]]


def test_haproxy_takes_the_file_without_a_warning() -> None:
    judged("haproxy", "-c", "-q", "-f", FILE)


def test_its_timeouts_are_longer_than_what_the_server_lets_pass() -> None:
    settings = load({"VOXTRAL_API_KEY": "any", "MAX_CONCURRENT_CONNECTIONS": "1"})

    assert seconds("timeout tunnel") > limits.PEER_SILENCE_S > limits.PING_INTERVAL_S
    assert seconds("timeout http-request") <= limits.HANDSHAKE_S
    assert seconds("hard-stop-after") >= settings.max_duration_s


@asynccontextmanager
async def session(port: int) -> AsyncIterator[Client]:
    """A session with whichever replica; who is told to try again does."""
    while True:
        async with websocket(port, "/ws", headers={"X-API-Key": KEY}) as client:
            event = await client.next()
            if isinstance(event, Error):
                assert event.details["retry"] is True, event
                await trio.sleep(limits.RETRY_AFTER_DRAIN_S)
                continue
            assert isinstance(event, SessionCreated)
            client.created = event
            yield client
            return


def home(client: Client) -> float:
    """Which replica a session is with: each has a limit of its own, which it tells."""
    assert client.created is not None
    return client.created.limits["max_bad_messages"]


async def test_p16_behind_haproxy_a_drain_moves_new_clients_and_cuts_nobody(tmp_path: Path) -> None:
    program("haproxy")
    drain = {"VOXTRAL_DRAIN_TIMEOUT_S": "20"}
    with trio.fail_after(60):
        async with (
            server_process(WS_MAX_BAD_MESSAGES="1", **drain) as old,
            server_process(WS_MAX_BAD_MESSAGES="2", **drain) as new,
        ):
            await old.said("engine.ready")
            await new.said("engine.ready")
            async with (
                haproxy(tmp_path, await old.port(), await new.port()) as balancer,
                session(balancer.port) as one,
                session(balancer.port) as other,
            ):
                staying, leaving = sorted((one, other), key=home, reverse=True)
                assert (home(leaving), home(staying)) == (1, 2)
                for client in (staying, leaving):
                    await client.start()
                    await client.send(SILENCE)
                    await client.alive()

                old.signal(signal.SIGTERM)
                await old.said("server.draining")
                async with session(balancer.port) as third, session(balancer.port) as fourth:
                    assert (home(third), home(fourth)) == (2, 2)

                    await leaving.finish_whole(SILENCE, audio_s=2)
                    await leaving.refused("shutting_down", "shutting_down")
                    assert await leaving.closed() == (1012, "shutting_down")
                    assert await old.exit_status() == 0

                    await staying.finish_whole(SILENCE, audio_s=2)
                    for client in (staying, third, fourth):
                        await client.alive()
                async with session(balancer.port) as late:
                    assert home(late) == 2


async def test_haproxy_lets_nobody_outside_to_the_figures(tmp_path: Path) -> None:
    program("haproxy")
    with trio.fail_after(30):
        async with server_process() as server:
            await server.said("engine.ready")
            here = await server.port()
            async with haproxy(tmp_path, here, here) as balancer:
                port = balancer.port
                for path in ("/metrics", "/debug/actors"):
                    assert (await request(port, path)).status == 404
                assert (await request(port, "/healthz")).status == 200
                assert (await request(port, "/")).status == 200


async def test_a_client_can_be_found_in_both_logs(tmp_path: Path) -> None:
    program("haproxy")
    with trio.fail_after(30):
        async with server_process() as server:
            await server.said("engine.ready")
            here = await server.port()
            async with haproxy(tmp_path, here, here) as balancer, session(balancer.port) as client:
                await client.close()
                peer = (await server.said("connection.ended"))["peer"]
                line = await balancer.said(" /ws")
                assert f" {peer} " in line
                assert KEY not in line
