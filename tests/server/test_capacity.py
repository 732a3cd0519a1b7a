"""P5 and P6: the count of connections is exact, and strangers cannot use it up."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import AsyncExitStack

import pytest
import trio

from tests.engine.scripted import Script
from tests.server.harness import Served, serving, until
from tests.server.wire_client import KEY, LINGER_ZERO, Client
from tests.server.wire_helpers import upgrade_request
from voxtral_actors.limits import DEPARTURES_AT_ONCE
from voxtral_actors.protocol.events import Error


async def test_p5_the_last_token_is_given_once() -> None:
    """Twenty clients race for three tokens, again and again."""
    with trio.fail_after(20):
        async with serving(MAX_CONCURRENT_CONNECTIONS="3") as server:
            for _ in range(3):
                assert await race(server, 20) == {"session.created": 3, "error": 17}
                await until(lambda: server.admission.open == 0, "tokens are missing")


async def race(server: Served, clients: int) -> Counter[str]:
    """All connect at once, and stay until everybody has been told."""
    told: Counter[str] = Counter()
    everybody = trio.Event()

    async def run() -> None:
        async with server.connect(X_API_Key=KEY) as client:
            told[type(await client.next()).TYPE] += 1
            if told.total() == clients:
                everybody.set()
            await everybody.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(run)
    return told


async def drop(client: Client) -> None:
    await client.reset()


async def half_close(client: Client) -> None:
    await client.raw.stream.send_eof()


async def say_end(client: Client) -> None:
    await client.say("end")


async def break_protocol(client: Client) -> None:
    await client.raw.send(b"\xff" * 64)


async def send_too_much(client: Client) -> None:
    await client.send(b"x" * 5000)


async def close_politely(client: Client) -> None:
    await client.close()


async def wait(client: Client) -> None:
    await client.raw.close_frame()


@pytest.mark.parametrize(
    "leave",
    [drop, half_close, say_end, break_protocol, send_too_much, close_politely, wait],
    ids=lambda function: function.__name__,
)
async def test_p5_the_token_comes_back_after_every_ending(leave: object) -> None:
    assert callable(leave)
    settings = {
        "MAX_CONCURRENT_CONNECTIONS": "1",
        "WS_MAX_MESSAGE_BYTES": "4096",
        "WS_IDLE_TIMEOUT_S": "0.3",
    }
    with trio.fail_after(10):
        async with serving(Script(hang_after=0), **settings) as server:
            for _ in range(2):
                async with server.session() as client:
                    await client.start()
                    await client.alive()
                    await leave(client)
                    await until(lambda: server.admission.open == 0, "the token is still out")
                    await until(
                        lambda: server.engine.statistics().slots_taken == 0, "the slot is taken"
                    )


async def test_p5_a_handshake_that_is_cut_costs_no_token() -> None:
    with trio.fail_after(10):
        async with serving(MAX_CONCURRENT_CONNECTIONS="1") as server:
            whole = upgrade_request("/ws", b"X-API-Key: " + KEY.encode())
            for cut in (*range(0, len(whole), 16), len(whole)):
                stream = await server.stream()
                await stream.send_all(whole[:cut])
                await stream.aclose()  # with an answer unread, a RST
            await server.empty()
            async with server.session() as client:
                await client.alive()


@pytest.mark.parametrize("seed", range(3))
async def test_p5_the_count_is_exact_through_random_aborts(seed: int) -> None:
    """Strangers, cut handshakes, resets: never are more in than may be, and in the end none."""
    rng = random.Random(seed)
    whole = upgrade_request("/ws", b"X-API-Key: " + KEY.encode())
    most = 0

    async def cut_short(server: Served) -> None:
        stream = await server.stream()
        await stream.send_all(whole[: rng.randrange(len(whole) + 1)])
        if rng.random() < 0.5:
            stream.setsockopt(*LINGER_ZERO)
        await trio.aclose_forcefully(stream)

    async def visit(server: Served) -> None:
        async with server.connect(X_API_Key=rng.choice((KEY, KEY, "wrong"))) as client:
            if isinstance(await client.next(), Error):
                return
            assert server.admission.open <= 5
            if rng.random() < 0.5:
                await client.start()
                await client.send(bytes(2560))
            await rng.choice((drop, half_close, close_politely, break_protocol))(client)

    async def crowd(server: Served) -> None:
        nonlocal most
        for _ in range(10):
            await rng.choice((cut_short, visit))(server)
            most = max(most, server.admission.open)

    with trio.fail_after(20):
        async with serving(MAX_CONCURRENT_CONNECTIONS="5") as server:
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(crowd, server)
            await server.empty()
            assert most <= 5
            assert server.admission.admitted == server.running.service.outcomes.total()


async def test_p6_a_crowd_of_half_handshakes_keeps_nobody_out() -> None:
    with trio.fail_after(20):
        async with serving(MAX_CONCURRENT_CONNECTIONS="1") as server, AsyncExitStack() as crowd:
            for _ in range(400):
                stream = await crowd.enter_async_context(await server.stream())
                await stream.send_all(b"GET /ws HTTP/1.1\r\nHost: h\r\n")
            began = trio.current_time()
            async with server.session() as client:
                await client.alive()
                assert trio.current_time() - began < 1
                assert server.admission.open == 1
            await crowd.aclose()


async def test_p1_a_crowd_that_leaves_at_once_is_cleared_away_a_few_at_a_time() -> None:
    """In between, those who stay get their turn."""
    crowd = 5 * DEPARTURES_AT_ONCE
    with trio.fail_after(30):
        async with serving(MAX_CONCURRENT_CONNECTIONS=str(crowd)) as server:
            sockets = [await server.stream() for _ in range(crowd)]
            for stream in sockets:
                await stream.send_all(upgrade_request("/ws", f"X-API-Key: {KEY}".encode()))
            for stream in sockets:  # nothing is on its way to them any more
                heard = b""
                while b"session.created" not in heard:
                    heard += await stream.receive_some()
            assert server.admission.open == crowd

            for stream in sockets:
                stream.setsockopt(*LINGER_ZERO)
                stream.socket.close()  # all in one moment: there is no checkpoint in it
            most = 0
            while server.admission.open:
                most = max(most, server.running.listener.statistics().ending)
                await trio.lowlevel.checkpoint()

    assert 0 < most <= DEPARTURES_AT_ONCE
