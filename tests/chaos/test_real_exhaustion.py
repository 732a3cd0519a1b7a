"""A real server process without enough file descriptors, and one with enough for a large crowd."""

from __future__ import annotations

import resource
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from bench.processes import cpu_seconds
from tests.chaos.real_harness import (
    WHOLE_REQUEST,
    at_rest,
    calm,
    figures,
    many_descriptors,
    raw_socket,
    scripted_server,
)
from tests.server.server_process import ServerProcess

SPARE = 12


async def few_descriptors(server: ServerProcess) -> None:
    """From now on the server may open only `SPARE` files more."""
    used = len(await at_rest(server))
    pid = server.process.pid
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + SPARE, used + SPARE))


def failures(server: ServerProcess) -> list[str]:
    return [line["event"] for line in server.log if line["event"].startswith("listener.")]


async def test_without_descriptors_sessions_go_on_and_then_others_come_in(tmp_path: Path) -> None:
    """All of them are taken by admitted sessions; more clients wait in the kernel's queue."""
    with trio.fail_after(60):
        async with scripted_server(tmp_path, MAX_CONCURRENT_CONNECTIONS="50") as server:
            await few_descriptors(server)
            async with calm(server, errors=("listener.out_of_descriptors",)):
                async with AsyncExitStack() as crowd:
                    for _ in range(SPARE - 1):  # the bystander has one
                        await crowd.enter_async_context(server.session())
                    for _ in range(20):
                        waiting = await crowd.enter_async_context(raw_socket(server))
                        await waiting.send(WHOLE_REQUEST)
                    await server.said("listener.out_of_descriptors")
                    began, used = trio.current_time(), cpu_seconds(server.process.pid)
                    await trio.sleep(1)
                    used = cpu_seconds(server.process.pid) - used
                    assert used < 0.8 * (trio.current_time() - began), "it spins"
                    assert failures(server) == ["listener.out_of_descriptors"]
                async with server.session() as client:
                    await client.alive()
            assert (await figures(server))["sockets_out_of_descriptors_total"] > 0


async def test_p6_half_handshakes_make_room_when_descriptors_run_out(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with scripted_server(tmp_path, MAX_CONCURRENT_CONNECTIONS="50") as server:
            await few_descriptors(server)
            async with (
                calm(server, errors=("listener.out_of_descriptors",)),
                AsyncExitStack() as crowd,
            ):
                for _ in range(30):
                    half = await crowd.enter_async_context(raw_socket(server))
                    await half.send(WHOLE_REQUEST[:20])
                async with server.session() as client:
                    await client.alive()
            assert (await figures(server))["sockets_ended_total{pushed_out}"] > 0


@pytest.mark.parametrize("hard", [1_000, 70], ids=["enough", "too low"])
async def test_a_low_limit_of_open_files_is_raised_or_said(hard: int, tmp_path: Path) -> None:
    """What the settings ask for must not need an `ulimit`, where the system allows it at all."""
    with trio.fail_after(40):
        async with scripted_server(
            tmp_path, "prlimit", f"--nofile=64:{hard}", MAX_CONCURRENT_CONNECTIONS="101"
        ) as server:
            if hard < 101:
                line = await server.said("server.few_descriptors")
                assert line["open_files_limit"] == hard
                return
            async with calm(server), AsyncExitStack() as crowd:
                for _ in range(100):
                    await crowd.enter_async_context(server.session())
                await crowd.aclose()


@pytest.mark.parametrize(
    "count", [300, pytest.param(2_000, marks=pytest.mark.chaos)], ids=["300", "2000"]
)
async def test_a_live_session_does_not_notice_a_crowd_of_idle_ones(
    count: int, tmp_path: Path
) -> None:
    rss = "process_resident_memory_bytes"
    with trio.fail_after(30 + count / 20), many_descriptors(count + 500):
        async with (
            scripted_server(tmp_path, MAX_CONCURRENT_CONNECTIONS=str(count + 1)) as server,
            calm(server),
            AsyncExitStack() as crowd,
        ):
            before = await figures(server)
            for _ in range(count):
                await crowd.enter_async_context(server.session())
            now = await figures(server)
            assert now["connections_open"] == count + 1
            assert now[rss] - before[rss] < count * 200_000
            began, used = trio.current_time(), cpu_seconds(server.process.pid)
            await trio.sleep(1)  # an idle crowd is no work
            share = (cpu_seconds(server.process.pid) - used) / (trio.current_time() - began)
            assert share < 0.7
            await crowd.aclose()
