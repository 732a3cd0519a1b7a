"""What becomes of an engine's processes and their memory; processes of Python stand for vLLM's."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing import shared_memory
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from voxtral_actors.engine.vllm_processes import Brood

SPAWN = multiprocessing.get_context("spawn")
MEMORY = Path("/dev/shm")  # noqa: S108 - looks only


def engine(pipe: Connection) -> None:
    """A process with a semaphore and shared memory, which has started another process."""
    semaphore, memory = SPAWN.Semaphore(), shared_memory.SharedMemory(create=True, size=100)
    worker = subprocess.Popen(["sleep", "100"])  # noqa: S607
    pipe.send((worker.pid, [memory.name, f"sem.{semaphore._semlock.name[1:]}"]))  # type: ignore[attr-defined]
    signal.pause()


class Engine:
    def __init__(self) -> None:
        here, there = SPAWN.Pipe()
        self.process = SPAWN.Process(target=engine, args=(there,))
        self.process.start()
        there.close()
        worker, self.memory = here.recv()
        self.worker = psutil.Process(worker)

    def alive(self) -> list[bool]:
        zombie = psutil.STATUS_ZOMBIE
        worker = self.worker.is_running() and self.worker.status() != zombie
        return [
            self.process.is_alive(),
            worker,
            *((MEMORY / name).exists() for name in self.memory),
        ]


@pytest.fixture
def brood() -> Iterator[Brood]:
    brood = Brood()
    yield brood
    Brood().kill()
    brood.kill()


def test_a_brood_leaves_with_its_descendants_and_their_memory(brood: Brood) -> None:
    one = Engine()
    assert one.alive() == [True] * 4

    brood.kill()

    assert one.alive() == [False] * 4


def test_so_does_one_whose_first_process_is_dead_already(brood: Brood) -> None:
    """Its descendants have another parent then, and its memory is in nobody's map."""
    one = Engine()
    brood.look()
    one.process.kill()
    one.process.join()
    one.worker.kill()

    brood.kill()

    assert one.alive() == [False] * 4


def test_an_end_that_is_slow_leaves_the_next_life_alone(brood: Brood) -> None:
    old = Engine()
    following = Brood()
    young = Engine()

    brood.kill()
    assert old.alive() == [False] * 4
    assert young.alive() == [True] * 4

    following.kill()
    assert young.alive() == [False] * 4


def test_what_a_start_still_starts_is_killed_until_it_is_over(brood: Brood) -> None:
    born: list[Engine] = []
    enough = threading.Event()

    def start() -> None:
        while not enough.is_set():
            try:
                born.append(Engine())
            except EOFError:  # it was killed before it had said a word
                continue

    starting = threading.Thread(target=start)
    starting.start()
    threading.Timer(1.0, enough.set).start()
    brood.kill_until_over(starting)

    assert not starting.is_alive()
    assert [alive for one in born for alive in one.alive()].count(True) == 0


def test_the_trackers_list_is_clean_afterwards() -> None:
    """Else Python says at exit that something leaked, and looks for it."""
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from tests.vllm.test_processes import Brood, Engine
if __name__ == "__main__":
    brood = Brood()
    engine = Engine()
    brood.look()
    engine.process.kill()
    engine.process.join()
    brood.kill()
    print(engine.alive())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n")[0] == str([False] * 4)
    assert done.stderr == ""
