"""The real server process, `python -m voxtral_actors serve`, with the embedded engine behind it.

Its log is read as JSON, so a test waits for what the server says and not for time to pass. Worker
processes are the server's children and not ours: they are watched through pidfds, which tell of an
end no matter who is left to reap it.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import trio

from tests.server.harness import Answer, request
from tests.server.wire_client import KEY, Client, websocket
from voxtral_actors.protocol.events import SessionCreated

SETTINGS = {
    "VOXTRAL_API_KEY": KEY,
    "MAX_CONCURRENT_CONNECTIONS": "4",
    "VOXTRAL_PORT": "0",
    "VOXTRAL_ENGINE": "sphinx",
    "VOXTRAL_LOG_FORMAT": "json",
}


def start_command(**env: str) -> dict[str, Any]:
    """How `serve` is started with these settings and no others."""
    return {
        "command": [sys.executable, "-m", "voxtral_actors", "serve"],
        "env": {"PATH": os.environ["PATH"], **SETTINGS, **env},
    }


@attrs.define
class ServerProcess:
    """A running server; `log` is what it has said so far."""

    process: trio.Process
    log: list[dict[str, Any]] = attrs.field(factory=list)
    _news: trio.Event = attrs.field(factory=trio.Event)
    _workers: dict[int, int] = attrs.field(factory=dict)  # pid -> pidfd

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        buffer = b""
        async for data in self.process.stderr:
            *lines, buffer = (buffer + data).split(b"\n")
            self.log += map(json.loads, lines)
            self._news.set()
            self._news = trio.Event()

    async def said(self, event: str) -> dict[str, Any]:
        """Wait for a line of the log."""
        while True:
            for line in self.log:
                if line["event"] == event:
                    return line
            await self._news.wait()

    async def port(self) -> int:
        line = await self.said("server.listening")
        port: int | None = urlsplit(line["url"]).port
        assert port
        return port

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit_status(self) -> int:
        status: int = await self.process.wait()
        return status

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        async with websocket(await self.port(), f"/ws?api_key={KEY}") as client:
            yield client

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Client]:
        await self.said("engine.ready")
        async with self.connect() as client:
            await client.hear(SessionCreated)
            yield client

    async def http(self, path: str) -> Answer:
        return await request(await self.port(), path)

    def watch_workers(self, files: ExitStack) -> int:
        """Remember the children that the server has now; returns how many those are."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = re.search(r"\) \S (\d+)", stat.read_text())
                if parent and int(parent[1]) == self.process.pid:
                    pid = int(stat.parent.name)
                    self._workers[pid] = os.pidfd_open(pid)
                    files.callback(os.close, self._workers[pid])
            except (OSError, ProcessLookupError):  # it ended meanwhile
                continue
        return len(self._workers)

    def living_workers(self) -> set[int]:
        ended, _, _ = select.select(list(self._workers.values()), [], [], 0)
        return {pid for pid, fd in self._workers.items() if fd not in ended}

    async def workers_ended(self) -> None:
        for fd in self._workers.values():
            await trio.lowlevel.wait_readable(fd)


@asynccontextmanager
async def server_process(*runner: str, **env: str) -> AsyncIterator[ServerProcess]:
    """A server with these settings; it is killed in the end if it still runs.

    `runner` is a command that runs it in its own place, such as `prlimit --nofile=64`.
    """
    start = start_command(**env)
    start["command"] = [*runner, *start["command"]]
    process = await trio.lowlevel.open_process(
        **start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    server = ServerProcess(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.read_log)
        try:
            yield server
        finally:
            process.kill()
            with trio.move_on_after(5, shield=True):
                await process.wait()
        nursery.cancel_scope.cancel()
