"""A real server process under attack, and what must be true of it afterwards.

`scripted_server` and `sphinx_server` are processes of their own on a port of the loopback. `calm`
holds what it held before: as many descriptors and processes, no slot, no token, no socket, ready,
and nothing in its log that is an error. What happens inside its block happens beside a session that
speaks all the time and must get each word right and in time.
"""

from __future__ import annotations

import json
import re
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos import real_engine
from tests.server.harness import speaking
from tests.server.server_process import ServerProcess, server_process
from tests.server.wire_client import KEY
from tests.server.wire_helpers import HOST, Raw, upgrade_request
from voxtral_actors.limits import METRICS_AGE_S

PATIENCE_S = 10.0
"""How late a word of a bystander may be: not a promise about speed, but a limit for a hang."""

WHOLE_REQUEST = upgrade_request("/ws", b"X-API-Key: " + KEY.encode())


@asynccontextmanager
async def scripted_server(folder: Path, *runner: str, **env: str) -> AsyncIterator[ServerProcess]:
    """A server whose text is a function of the audio; ready, and warm from a first session."""
    settings = {"VOXTRAL_ENGINE": "scripted", "PYTHONPATH": real_engine.path(folder), **env}
    async with server_process(*runner, **settings) as server:
        async with server.session() as client:
            await client.utter(bytes(2560))
            await client.close()
        await figures(server)
        yield server


async def figures(server: ServerProcess) -> dict[str, float]:
    """All of /metrics: `name{label,…}` -> value, without the prefix."""
    found: dict[str, float] = {}
    answer = await server.http("/metrics")
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = ",".join(sample.labels.values())
            name = sample.name.removeprefix("voxtral_")
            found[f"{name}{{{labels}}}" if labels else name] = sample.value
    return found


def descriptors(pid: int) -> list[str]:
    """What a process has open."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(re.sub(r"\d+", "", str(path.readlink())))
        except FileNotFoundError:  # closed meanwhile
            continue
    return sorted(found)


async def settled(server: ServerProcess) -> dict[str, float]:
    """Wait until the server holds nothing for anybody; returns the figures of that moment."""
    while True:
        now = await figures(server)
        held = {
            "connections_open": now["connections_open"],
            "engine_slots_taken": now["engine_slots_taken"],
            "sockets besides this one": now["sockets_open"] - 1,
        }
        if not any(held.values()):
            return now
        await trio.sleep(METRICS_AGE_S)  # before that the answer is the same


@asynccontextmanager
async def calm(server: ServerProcess, *, errors: tuple[str, ...] = ()) -> AsyncIterator[None]:
    """See the module. `errors` are events that may be in the log as errors."""
    async with (
        unharmed(server, errors=errors),
        server.session() as peer,
        speaking(peer, patience_s=PATIENCE_S),
    ):
        yield


@asynccontextmanager
async def unharmed(server: ServerProcess, *, errors: tuple[str, ...] = ()) -> AsyncIterator[None]:
    """What the server must hold to afterwards, without anybody who speaks meanwhile."""
    pid = server.process.pid
    before = await at_rest(server)
    yield
    with trio.fail_after(30):
        now = await settled(server)
        await until_soon(lambda: descriptors(pid) == before)
    assert now["connections_total"] == sum(
        value for name, value in now.items() if name.startswith("connections_ended_total")
    )
    assert now["sockets_failures_total"] == 0
    assert (await server.http("/readyz")).status == 200
    assert_no_errors(server, errors)


async def until_soon(holds: Callable[[], bool]) -> None:
    """Wait for a fact about another process that nobody signals."""
    while not holds():  # noqa: ASYNC110 - there is nothing to wait on
        await trio.sleep(METRICS_AGE_S)


async def at_rest(server: ServerProcess) -> list[str]:
    """The descriptors of a server that serves nobody."""
    await settled(server)
    pid = server.process.pid
    seen: list[str] = []
    while (now := descriptors(pid)) != seen:  # the socket that asked may not be closed yet
        seen = now
        await trio.sleep(METRICS_AGE_S)
    return seen


def assert_no_errors(server: ServerProcess, allowed: tuple[str, ...] = ()) -> None:
    wrong = [
        line
        for line in server.log
        if (line["level"] in ("error", "critical") or "Traceback" in json.dumps(line))
        and line["event"] not in allowed
    ]
    assert not wrong, wrong


@asynccontextmanager
async def raw_socket(server: ServerProcess) -> AsyncIterator[Raw]:
    """A connection on which nothing has been said."""
    async with await trio.open_tcp_stream(HOST, await server.port()) as stream:
        yield Raw(stream)


@contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """This process, and those that it starts, may open so many files; skips where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"needs {count} open files, the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
