"""The real HAProxy with the file of `config/` in front of servers of ours.

The file is as it is shipped, but for its addresses and a limit that this machine may not have.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from tests.deploy.tools import CONFIG, program
from tests.server.harness import request
from tests.server.wire_helpers import HOST

FILE = CONFIG / "haproxy" / "haproxy.cfg"
TEXT = FILE.read_text("utf-8")


def free_port() -> int:
    with socket.create_server((HOST, 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def moved(port: int, *replicas: int) -> str:
    """The file with other addresses, and for a machine that allows fewer open files."""
    text = TEXT
    changes = {"bind :80": f"bind {HOST}:{port}", "maxconn 20000": "maxconn 100"}
    for number, replica in enumerate(replicas, 1):
        changes[f"10.0.0.1{number}:8000"] = f"{HOST}:{replica}"
    for old, new in changes.items():
        assert text.count(f"{old}\n") == 1
        text = text.replace(f"{old}\n", f"{new}\n")
    return text


@attrs.define
class Balancer:
    """A running HAProxy; `log` is what it has said so far."""

    port: int
    process: trio.Process
    log: list[str] = attrs.field(factory=list)
    _news: trio.Event = attrs.field(factory=trio.Event)

    async def read_log(self) -> None:
        assert self.process.stdout is not None
        buffer = b""
        async for data in self.process.stdout:
            *lines, buffer = (buffer + data).split(b"\n")
            self.log += [line.decode() for line in lines]
            self._news.set()
            self._news = trio.Event()

    async def said(self, what: str, since: int = 0) -> str:
        """Wait for a line that contains this, behind the first `since` ones."""
        while True:
            for line in self.log[since:]:
                if what in line:
                    return line
            await self._news.wait()

    async def answers(self) -> None:
        """Wait until it serves what the replicas say."""
        while True:
            try:
                if (await request(self.port, "/readyz")).status == 200:
                    return
            except OSError:  # it does not listen yet, and nobody says when
                assert self.process.returncode is None, "HAProxy did not start"
            await trio.sleep(0.05)


@asynccontextmanager
async def haproxy(folder: Path, *replicas: int) -> AsyncIterator[Balancer]:
    """HAProxy in front of what listens, or will, on these ports."""
    port = free_port()
    file = folder / "haproxy.cfg"
    file.write_text(moved(port, *replicas))
    process = await trio.lowlevel.open_process(
        [program("haproxy"), "-db", "-f", file], stdout=subprocess.PIPE
    )
    balancer = Balancer(port, process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(balancer.read_log)
        try:
            await balancer.answers()
            yield balancer
        finally:
            process.kill()
            with trio.move_on_after(5, shield=True):
                await process.wait()
        nursery.cancel_scope.cancel()
