"""The wall clock may leap: nothing in the server waits by it, and nothing is measured with it."""

from __future__ import annotations

import ast
from pathlib import Path

import trio

from tests.chaos.real_harness import PATIENCE_S, calm, scripted_server
from tests.server.wire_client import Client
from tests.test_architecture import MODULES, Module
from voxtral_actors.protocol.events import Cancelled, Error

WALL_CLOCKS = {
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.gmtime",
    "time.ctime",
    "time.strftime",
}

MAY_READ = {"server.quart_app": {"time.time"}}
"""`created` of `session.created`: told to the client, and never looked at again."""


def read_clocks(module: Module) -> set[str]:
    found = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    imported = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return (found | imported) & WALL_CLOCKS


def test_the_wall_clock_is_read_in_one_place() -> None:
    found = {module.name: read for module in MODULES if (read := read_clocks(module))}
    dates = {module.name for module in MODULES if "datetime" in module.outside}
    assert (found, dates) == (MAY_READ, set())


async def closes_with(client: Client, code: int, after_s: float, began: float) -> None:
    """The server closes by itself so long after `began`, which was before the session."""
    assert (await client.raw.close_frame())[0] == code
    assert after_s - 0.1 < trio.current_time() - began < after_s + PATIENCE_S


async def test_a_leaping_wall_clock_changes_no_deadline_and_no_window(tmp_path: Path) -> None:
    """The clock of this process is a day ahead, a day behind, and right, in turns."""
    with trio.fail_after(60):
        async with (
            scripted_server(
                tmp_path,
                VOXTRAL_ENGINE="leaping",
                WS_IDLE_TIMEOUT_S="2",
                WS_MAX_CANCELS_PER_WINDOW="2",
            ) as server,
            calm(server),
        ):
            began = trio.current_time()
            async with server.session() as client:
                for _ in range(2):
                    await client.say("cancel")
                    await client.hear(Cancelled)
                await client.say("cancel")
                refused = await client.hear(Error)
                assert refused.reason_code == "cancel_rate_limited"
                retry_in = refused.details["retry_in"]
                assert isinstance(retry_in, int | float)
                assert 0 < retry_in <= 60
                await closes_with(client, 4000, 2, began)
        async with scripted_server(
            tmp_path, VOXTRAL_ENGINE="leaping", WS_MAX_CONNECTION_DURATION_S="2"
        ) as server:
            began = trio.current_time()
            async with server.session() as client:
                await closes_with(client, 4003, 2, began)
