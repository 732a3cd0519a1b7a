"""Two hundred connections end in every way at once, and nothing of them is left."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.engine.scripted import HEALTHY, Script, speech, transcript
from tests.server.harness import Served, serving, until
from tests.server.wire_client import Client
from voxtral_actors.connection import supervisor
from voxtral_actors.connection.wiring import Wiring, open_wiring
from voxtral_actors.protocol.events import Cancelled, Done, Error, SessionEnd

PCM = speech(0.8, seed=1)


async def end(client: Client) -> None:
    await client.say("end")
    await client.hear_past_deltas(Cancelled)
    await client.hear(SessionEnd)
    assert (await client.closed())[0] == 1000


async def finish_then_end(client: Client) -> None:
    await client.finish("u")
    assert (await client.hear_past_deltas(Done)).text == transcript(PCM)
    await client.say("end")
    await client.hear(SessionEnd)
    assert (await client.closed())[0] == 1000


async def cancel_then_end(client: Client) -> None:
    await client.say("cancel", "u")
    await client.hear_past_deltas(Cancelled)
    await client.say("end")
    await client.hear(SessionEnd)
    assert (await client.closed())[0] == 1000


async def close(client: Client) -> None:
    await client.close(4999)


async def reset(client: Client) -> None:
    await client.reset()


async def reset_while_finalising(client: Client) -> None:
    await client.finish("u")
    await client.reset()


async def hang_up(client: Client) -> None:
    await trio.aclose_forcefully(client.raw.stream)


async def half_close(client: Client) -> None:
    await client.raw.stream.send_eof()
    await client.raw.gone()


async def misbehave(client: Client) -> None:
    for _ in range(3):
        await client.send("{")
    assert (await client.raw.close_frame())[0] == 4009


async def break_the_protocol(client: Client) -> None:
    await client.raw.send(b"\xff" * 64)
    await client.raw.gone()


async def send_too_much(client: Client) -> None:
    await client.send(bytes(50_000))
    assert (await client.raw.close_frame())[0] == 1009


async def fall_silent(client: Client) -> None:
    assert (await client.raw.close_frame())[0] == 4000


async def stay_too_long(client: Client) -> None:
    async def ping() -> None:
        while True:
            await client.say("ping")
            await trio.sleep(0.3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ping)
        assert (await client.raw.close_frame())[0] == 4003
        nursery.cancel_scope.cancel()


WAYS: list[Callable[[Client], Awaitable[None]]] = [
    end,
    finish_then_end,
    cancel_then_end,
    close,
    reset,
    reset_while_finalising,
    hang_up,
    half_close,
    misbehave,
    break_the_protocol,
    send_too_much,
    fall_silent,
    stay_too_long,
]
SETTINGS = {
    "MAX_CONCURRENT_CONNECTIONS": "200",
    "WS_MAX_MESSAGE_BYTES": "40000",
    "WS_MAX_BAD_MESSAGES": "3",
    "WS_IDLE_TIMEOUT_S": "1.5",
    "WS_MAX_CONNECTION_DURATION_S": "6",
}


@pytest.fixture
def wirings(monkeypatch: pytest.MonkeyPatch) -> list[Wiring]:
    """The channels of every connection that was served."""
    made: list[Wiring] = []

    def remembered() -> Wiring:
        made.append(open_wiring())
        return made[-1]

    monkeypatch.setattr(supervisor, "open_wiring", remembered)
    return made


async def one_life(server: Served, leave: Callable[[Client], Awaitable[None]]) -> None:
    async with server.session() as client:
        await client.start("u")
        await client.send(PCM)
        await leave(client)


@pytest.mark.parametrize(
    "script",
    [Script(slots=200), Script(slots=200, step_s=0.02, late=True, garbage=True)],
    ids=["quick", "slow"],
)
async def test_p5_200_connections_end_in_every_way(wirings: list[Wiring], script: Script) -> None:
    with trio.fail_after(30):
        async with serving(script, **SETTINGS) as server:
            ways = [WAYS[number % len(WAYS)] for number in range(200)]
            random.Random(7).shuffle(ways)
            async with trio.open_nursery() as nursery:
                for leave in ways:
                    nursery.start_soon(one_life, server, leave)
            await server.empty()  # no admitted connection, no engine slot, no socket
            assert len(wirings) == server.admission.admitted == 200
            assert Counter(map(Wiring.open_ends, wirings)) == {0: 200}
            assert server.scripted.released == len(server.scripted.streams)
            ended = server.running.service.outcomes
            assert ended.total() == 200
            assert not [kind for kind, _ in ended if kind == "bug"]
            async with server.session() as client:
                await client.alive()


@pytest.mark.parametrize("script", [HEALTHY, Script(hang_after=0)], ids=["healthy", "hanging"])
async def test_a_server_that_is_cut_leaves_nothing(wirings: list[Wiring], script: Script) -> None:
    """The whole server is cancelled under its sessions, as a second signal does it."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def life(*, task_status: trio.TaskStatus[Served]) -> None:
                async with serving(script) as server:
                    task_status.started(server)
                    await trio.sleep_forever()

            async def talk(*, task_status: trio.TaskStatus[None]) -> None:
                async with server.session() as client:
                    await client.start()
                    await client.send(PCM)
                    await client.alive() if script.hang_after == 0 else await client.next()
                    task_status.started()
                    await client.raw.gone()

            server: Served = await nursery.start(life)
            for _ in range(4):
                await nursery.start(talk)
            nursery.cancel_scope.cancel()
        assert server.admission.open == 0
        assert server.engine.statistics().slots_taken == 0
        assert server.running.listener.statistics().open == 0
        assert Counter(map(Wiring.open_ends, wirings)) == {0: 4}


async def test_a_drain_ends_every_connection(wirings: list[Wiring]) -> None:
    with trio.fail_after(10):
        async with serving(Script(slots=50), MAX_CONCURRENT_CONNECTIONS="50") as server:
            ready = 0

            async def talk() -> None:
                nonlocal ready
                async with server.session() as client:
                    await client.start()
                    await client.send(PCM)
                    await client.next()
                    ready += 1
                    await until(lambda: server.running.service.drain.started, "no drain")
                    await client.finish()
                    assert (await client.hear_past_deltas(Done)).text == transcript(PCM)
                    await client.hear(Error)
                    assert await client.closed() == (1012, "shutting_down")

            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(talk)
                await until(lambda: ready == 50, "not everybody speaks")
                server.running.stop.set()
            await server.returned.wait()
            assert server.admission.open == 0
            assert server.running.listener.statistics().open == 0
            assert Counter(map(Wiring.open_ends, wirings)) == {0: 50}
