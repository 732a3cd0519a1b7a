"""Server processes: their start and end, and what they use, by process id.

CPU time is read from the process's own CPU clock: nanoseconds of all its threads, those that have
ended included, and none of its children. Linux only.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import attrs

HOST = "127.0.0.1"
START_S = 300.0
"""Longer than vLLM takes to start on any machine that is worth measuring on."""
STOP_S = 20.0


def cpu_seconds(pid: int) -> float:
    """What a process and its threads have computed so far."""
    process_clock = (~pid << 3) | 2  # what clock_getcpuclockid() returns on Linux
    return time.clock_gettime(process_clock)


def memory_bytes(pid: int) -> int:
    """What a process holds, in memory or swapped out."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return 1024 * sum(int(kb) for kb in re.findall(r"Vm(?:RSS|Swap):\s+(\d+) kB", status))


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        children.setdefault(int(after_name.split()[1]), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@attrs.define
class Server:
    """A server process that answers."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid


@contextmanager
def serving(
    name: str,
    command: Sequence[str],
    port: int,
    *,
    ready: str | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[Server]:
    """Run a server until the block is left: ended with SIGTERM, and by force if that takes long.

    `ready` is the HTTP path that answers 200 once the server is ready; without one it is ready when
    it accepts connections.
    """
    with Path(log or os.devnull).open("ab") as output:
        process = subprocess.Popen(
            list(command),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(name, port, process)
    try:
        _wait_ready(server, ready)
        yield server
    finally:
        relatives = family(process.pid)[1:]
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid in relatives:
            _kill_if_ours(pid, process.pid)


def python(module: str, *arguments: object) -> list[str]:
    """The command line of a module, in this interpreter."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def _wait_ready(server: Server, ready: str | None) -> None:
    looks: Callable[[], bool] = lambda: _accepts(server.port)  # noqa: E731
    if ready is not None:
        url = f"http://{HOST}:{server.port}{ready}"
        looks = lambda: _answers(url)  # noqa: E731
    limit = time.monotonic() + START_S
    while not looks():
        if server.process.poll() is not None:
            raise RuntimeError(f"{server.name} ended with status {server.process.returncode}")
        if time.monotonic() > limit:
            raise RuntimeError(f"{server.name} was not ready within {START_S:g} s")
        time.sleep(0.1)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:  # noqa: S310 - http on the loopback
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _kill_if_ours(pid: int, session: int) -> None:
    """End a left-over child: only one of the session that was started here."""
    try:
        if os.getsid(pid) == session:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
