"""What is read of a process, and how servers are started and ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench import processes
from bench.processes import HOST, free_port, serving


def test_cpu_time_is_that_of_the_process() -> None:
    before = time.process_time()
    seen = processes.cpu_seconds(os.getpid())

    assert before <= seen <= time.process_time()


def test_memory_grows_by_what_is_held() -> None:
    before = processes.memory_bytes(os.getpid())
    held = b"x" * (64 << 20)

    assert processes.memory_bytes(os.getpid()) - before > len(held) / 2


def test_the_family_of_a_process_has_its_children() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = processes.family(os.getpid())
        child.communicate(b"\n")

    assert found[0] == os.getpid()
    assert child.pid in found


def test_a_server_runs_until_the_block_is_left() -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", HOST]

    with serving("files", command, port, ready="/") as server:
        assert server.process.poll() is None

    assert server.process.returncode is not None


def test_a_server_that_ends_at_once_is_an_error() -> None:
    command = [sys.executable, "-c", "raise SystemExit(3)"]

    files = serving("files", command, free_port())
    with pytest.raises(RuntimeError, match="files ended with status 3"), files:
        pass
