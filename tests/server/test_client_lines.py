"""What the log says of clients: one line for each that came to an end, or never got in.

An operator reads from it who was turned away, why, and from where; a flood of such clients costs a
bounded number of lines.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from tests.engine.scripted import NEVER, Script
from tests.server.harness import Served, serving, until
from tests.server.wire_client import KEY
from tests.server.wire_helpers import OPTIONS, Raw, simulated, upgrade_request
from voxtral_actors import limits

Line = MutableMapping[str, Any]


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    with capture_logs() as captured:
        yield captured


def of(lines: list[Line], event: str) -> list[Line]:
    return [line for line in lines if line["event"] == event]


def the_only(lines: list[Line], event: str) -> Line:
    (line,) = of(lines, event)
    assert line["log_level"] == "info"
    return line


async def one(lines: list[Line], event: str) -> Line:
    """The only line of this event, once it is there."""
    await until(lambda: bool(of(lines, event)), f"no {event}")
    return the_only(lines, event)


async def name_of(raw: Raw) -> str:
    assert isinstance(raw.stream, trio.SocketStream)
    return "{}:{}".format(*raw.stream.socket.getsockname()[:2])


REFUSALS: dict[str, tuple[dict[str, str], Script]] = {
    "authentication_failed": ({"X_API_Key": "wrong"}, Script()),
    "origin_not_allowed": ({"X_API_Key": KEY, "Origin": "https://elsewhere.example"}, Script()),
    "engine_unavailable": ({"X_API_Key": KEY}, Script(start_s=NEVER)),
}


@pytest.mark.parametrize("reason", REFUSALS)
async def test_a_refused_client_leaves_a_line(reason: str, lines: list[Line]) -> None:
    offer, script = REFUSALS[reason]
    with trio.fail_after(10):
        async with serving(script) as server, server.connect(**offer) as client:
            peer = await name_of(client.raw)
            await client.next()
            await client.closed()
            line = await one(lines, "client.refused")
            assert (line["reason"], line["peer"], line["unreported"]) == (reason, peer, 0)
            assert not of(lines, "connection.ended")


async def test_a_client_for_whom_there_is_no_room_leaves_a_line(lines: list[Line]) -> None:
    with trio.fail_after(10):
        async with serving(MAX_CONCURRENT_CONNECTIONS="1") as server, server.session():
            async with server.connect(X_API_Key=KEY) as client:
                await client.next()
                await client.closed()
            assert (await one(lines, "client.refused"))["reason"] == "server_at_capacity"


async def test_a_request_that_is_refused_leaves_a_line(lines: list[Line]) -> None:
    with trio.fail_after(10):
        async with serving() as server, await server.stream() as stream:
            raw = Raw(stream)
            await raw.send(upgrade_request().replace(b"Version: 13", b"Version: 12"))
            await raw.rest()
            line = await one(lines, "client.refused")
            assert (line["reason"], line["peer"]) == ("bad_request", await name_of(raw))


async def test_a_handshake_that_takes_too_long_leaves_a_line(
    lines: list[Line], autojump_clock: MockClock
) -> None:
    async with simulated() as server:
        raw = server.connect()
        await raw.send(b"GET /ws HTTP/1.1\r\n")
        await server.over()
    line = the_only(lines, "client.refused")
    assert (line["reason"], line["peer"]) == ("handshake_timeout", "memory:1")


async def test_probes_and_clients_that_just_leave_are_no_news(lines: list[Line]) -> None:
    with trio.fail_after(10):
        async with serving() as server:
            await server.http("/healthz")
            await server.http("/nothing")
            async with await server.stream() as stream:
                await stream.send_all(b"GET ")
    assert not of(lines, "client.refused")


async def test_a_flood_of_refusals_costs_a_bounded_number_of_lines(
    lines: list[Line], autojump_clock: MockClock
) -> None:
    """The first ones are told, the rest counted; the count comes with the next line."""
    flood = 3 * limits.REFUSAL_LINES

    async with simulated(OPTIONS) as server:
        for _ in range(flood):
            raw = server.connect()
            await raw.send(b"no HTTP\r\n\r\n")
            await raw.stream.aclose()
        await server.over()
        assert len(of(lines, "client.refused")) == limits.REFUSAL_LINES
        await trio.sleep(limits.REFUSAL_LINES_S)
        raw = server.connect()
        await raw.send(b"no HTTP\r\n\r\n")
        await raw.stream.aclose()
        await server.over()
    told = of(lines, "client.refused")
    assert len(told) == limits.REFUSAL_LINES + 1
    assert told[-1]["unreported"] == flood - limits.REFUSAL_LINES


async def test_an_ended_connection_names_its_peer(lines: list[Line]) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            peer = await name_of(client.raw)
            await client.close()
            line = await one(lines, "connection.ended")
            assert (line["reason"], line["peer"]) == ("client_left", peer)


async def test_p9_a_close_1009_leaves_a_line(lines: list[Line]) -> None:
    with trio.fail_after(10):
        async with serving(WS_MAX_MESSAGE_BYTES="1024") as server, server.session() as client:
            peer = await name_of(client.raw)
            await client.send(bytes(1025))
            assert await client.closed() == (1009, "message_too_big")
            line = await one(lines, "connection.ended")
            assert (line["kind"], line["reason"]) == ("client_fault", "message_too_big")
            assert line["peer"] == peer


async def test_a_server_that_is_cut_does_not_say_that_its_clients_left(lines: list[Line]) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def life(*, task_status: trio.TaskStatus[Served]) -> None:
                async with serving() as server:
                    task_status.started(server)
                    await trio.sleep_forever()

            async def listen(*, task_status: trio.TaskStatus[None]) -> None:
                async with server.session() as client:
                    task_status.started()
                    await client.raw.gone()

            server: Served = await nursery.start(life)
            for _ in range(4):
                await nursery.start(listen)
            nursery.cancel_scope.cancel()
    ended = [(line["kind"], line["reason"]) for line in of(lines, "connection.ended")]
    assert ended == [("shutdown", "server_stopped")] * 4
