"""The process: how it stops, what it leaves behind, and how it refuses to start."""

from __future__ import annotations

import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import pytest
import trio

from tests.server.harness import until
from tests.server.server_process import server_process, start_command
from tests.server.wire_client import Client, deaf_client
from tests.server.wire_helpers import HOST
from voxtral_actors.engine.sphinx_limits import WARM
from voxtral_actors.limits import RETRY_AFTER_DRAIN_S
from voxtral_actors.protocol.events import Cancelled, Done, Error

SILENCE = bytes(32_000)
BOTH = [signal.SIGTERM, signal.SIGINT]


async def test_p16_sigterm_lets_utterances_finish_and_exits_0() -> None:
    with trio.fail_after(20), ExitStack() as files:
        async with (
            server_process(
                VOXTRAL_DRAIN_TIMEOUT_S="4", WS_CLOSE_GRACE_S="1", WS_WRITE_DEADLINE_S="60"
            ) as server,
            server.session() as speaking,
            server.session() as listening,
            deaf_client(await server.port()),
        ):
            await speaking.start()
            await speaking.send(SILENCE)
            await speaking.alive()
            assert server.watch_workers(files) >= 2

            signalled = trio.current_time()
            server.signal(signal.SIGTERM)

            await listening.refused("shutting_down", "shutting_down")
            assert await listening.closed() == (1012, "shutting_down")
            assert (await server.http("/readyz")).json() == {"status": "draining"}
            async with server.connect() as late:
                error = await late.refused("shutting_down", "shutting_down")
                assert error.details["retry"] is True
                assert error.details["retry_after_s"] == RETRY_AFTER_DRAIN_S
                assert await late.closed() == (1012, "shutting_down")

            await speaking.finish_whole(SILENCE, audio_s=2)
            assert isinstance(await speaking.next(), Error)
            assert await speaking.closed() == (1012, "shutting_down")

            assert await server.exit_status() == 0
            assert trio.current_time() - signalled < 4
            assert not server.living_workers()
        assert [line["event"] for line in server.log if line["level"] == "error"] == []


@pytest.mark.parametrize("second", BOTH, ids=lambda number: number.name)
async def test_p16_a_second_signal_stops_at_once(second: signal.Signals) -> None:
    with trio.fail_after(15), ExitStack() as files:
        async with server_process() as server, server.session() as client:
            await client.start()
            await client.send(SILENCE)
            await client.alive()
            server.watch_workers(files)
            server.signal(signal.SIGTERM)
            await server.said("server.draining")
            signalled = trio.current_time()
            server.signal(second)
            assert await server.exit_status() == 128 + second
            assert trio.current_time() - signalled < 2
            assert not server.living_workers()
            stopped = await server.said("server.stopped")
            assert (stopped["level"], stopped["cut"], stopped["signal"]) == (
                "warning", 1, second.name,
            )  # fmt: skip


@pytest.mark.parametrize("number", BOTH, ids=lambda number: number.name)
async def test_p16_a_signal_while_the_engine_starts_stops_it(number: signal.Signals) -> None:
    with trio.fail_after(15), ExitStack() as files:
        async with server_process() as server:
            await server.port()
            server.watch_workers(files)
            server.signal(number)
            assert await server.exit_status() == 0
            assert not server.living_workers()


async def test_workers_end_with_their_utterances() -> None:
    """However a connection ends, only the workers that wait for the next one are left."""
    with trio.fail_after(20), ExitStack() as files:
        async with server_process() as server:

            async def leave(way: Callable[[Client], Awaitable[None]]) -> None:
                async with server.session() as client:
                    await client.start()
                    await client.send(SILENCE)
                    await client.alive()
                    await way(client)

            async def finish(client: Client) -> None:
                await client.finish()
                await client.hear_past_deltas(Done)

            async def cancel(client: Client) -> None:
                await client.say("cancel")
                await client.hear_past_deltas(Cancelled)

            async with trio.open_nursery() as nursery:
                for way in (finish, cancel, Client.close, Client.reset):
                    nursery.start_soon(leave, way)
            while b"engine_slots_taken 0.0" not in (await server.http("/metrics")).body:
                pass  # another connection of ours may still be on its way out
            server.watch_workers(files)
            await until(lambda: len(server.living_workers()) <= WARM, "workers are left")


async def test_a_killed_server_leaves_no_worker_behind() -> None:
    with trio.fail_after(15), ExitStack() as files:
        async with server_process() as server, server.session() as client:
            await client.start()
            await client.send(SILENCE)
            await client.alive()
            assert server.watch_workers(files) >= 2
            server.signal(signal.SIGKILL)
            assert await server.exit_status() == -signal.SIGKILL
            await server.workers_ended()


@pytest.mark.parametrize(
    ("host", "why"),
    [(HOST, "Address already in use"), ("192.0.2.1", "Cannot assign requested address")],
    ids=["in use", "not ours"],
)
async def test_p18_an_address_that_cannot_be_had_is_one_clear_line(host: str, why: str) -> None:
    with trio.fail_after(15), socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        done = await trio.run_process(
            **start_command(VOXTRAL_HOST=host, VOXTRAL_PORT=str(port)),
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 1
    said = done.stderr.decode()
    assert said == f"voxtral-actors: cannot listen on {host}, port {port}: {why}\n"


async def test_p18_wrong_settings_are_all_named_and_nothing_starts() -> None:
    with trio.fail_after(15):
        done = await trio.run_process(
            **start_command(
                MAX_CONCURRENT_CONNECTIONS="0", WS_IDLE_TIMEOUT_S="soon", VOXTRAL_PROT="8000"
            ),
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 2
    _, *lines = done.stderr.decode().splitlines()
    assert [line.split()[0] for line in lines] == [
        "MAX_CONCURRENT_CONNECTIONS",
        "WS_IDLE_TIMEOUT_S",
        "VOXTRAL_PROT",
    ]
