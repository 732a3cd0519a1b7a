"""A real Prometheus with the files in config/ watches a real server, in good health and in a drain.

It runs the scrape configuration as it is, but for the name of the server and the pace.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trio

from tests.deploy.tools import CONFIG, program
from tests.server.server_process import ServerProcess, server_process
from tests.server.wire_helpers import HOST

FOLDER = CONFIG / "prometheus"
BY_NAME = """\
    dns_sd_configs:
      - names: [voxtral]
        type: A
        port: 8000
        refresh_interval: 15s
"""


class Watcher:
    """A Prometheus that listens on a port."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def ask(self, path: str) -> Any:
        """The data of an answer, once there is one."""
        while True:
            try:
                return await trio.to_thread.run_sync(self._get, path)
            except OSError:  # it does not listen yet, or is not ready
                await trio.sleep(0.1)

    def _get(self, path: str) -> Any:
        with closing(HTTPConnection(HOST, self._port, timeout=10)) as connection:
            connection.request("GET", f"/api/v1/{path}")
            answer = connection.getresponse()
            if answer.status != HTTPStatus.OK:
                raise OSError(answer.reason)
            return json.load(answer)["data"]

    async def values(self, query: str) -> list[float]:
        found = (await self.ask(f"query?query={quote(query)}"))["result"]
        return [float(series["value"][1]) for series in found]

    async def until(self, query: str, expected: list[float]) -> None:
        while await self.values(query) != expected:  # noqa: ASYNC110 - a process of its own
            await trio.sleep(0.2)

    async def rules(self) -> list[dict[str, Any]]:
        """All alerts, once each has been evaluated."""
        while True:
            groups = (await self.ask("rules"))["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            if rules and all(rule["health"] != "unknown" for rule in rules):
                return rules
            await trio.sleep(0.2)


@asynccontextmanager
async def watching(folder: Path, server: ServerProcess) -> AsyncIterator[Watcher]:
    for name in ("prometheus.yml", "voxtral.rules.yml"):
        shutil.copy(FOLDER / name, folder)
    file = folder / "prometheus.yml"
    text = file.read_text("utf-8")
    assert text.count(BY_NAME) == 1
    target = f"    static_configs: [{{targets: ['{HOST}:{await server.port()}']}}]\n"
    file.write_text(text.replace(BY_NAME, target).replace("_interval: 15s", "_interval: 1s"))
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    process = await trio.lowlevel.open_process(
        [
            program("prometheus"),
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={HOST}:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Watcher(port)
    finally:
        process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()


async def test_prometheus_sees_a_healthy_server_and_its_drain(tmp_path: Path) -> None:
    program("prometheus")
    with trio.fail_after(60):
        async with server_process(VOXTRAL_DRAIN_TIMEOUT_S="30") as server:
            await server.said("engine.ready")
            async with watching(tmp_path, server) as watcher, server.session() as client:
                await watcher.until('voxtral_ready{job="voxtral"}', [1])
                await watcher.until("voxtral_connections_open", [1])
                rules = await watcher.rules()
                assert {rule["health"] for rule in rules} == {"ok"}, json.dumps(rules, indent=1)
                assert {rule["name"] for rule in rules if rule["state"] != "inactive"} == set()

                await client.start()
                await client.send(bytes(32_000))
                await client.alive()
                server.signal(signal.SIGTERM)
                await server.said("server.draining")
                await watcher.until("voxtral_draining", [1])
                (drain,) = [
                    rule for rule in await watcher.rules() if rule["name"] == "VoxtralDrainTooLong"
                ]
                assert drain["state"] in {"inactive", "pending"}
