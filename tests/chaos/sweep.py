"""Many storms on every core: processes that import for themselves, and what they found."""

from __future__ import annotations

import os
import signal
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from threading import Thread

from tests.chaos import storms
from tests.chaos.world import ViolationError
from voxtral_actors.groups import leaves

SEEDS_A_TASK = 10
LIMIT_S = 60
"""Of this process's own time for one storm, which takes a fifth of a second."""


def play(seed: int) -> str | None:
    """What went wrong in one storm, or None."""
    signal.signal(signal.SIGVTALRM, _too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        storms.run(seed)
    except ViolationError as error:
        return f"{error}"
    except Exception as group:  # a judge that raised, a hang: whatever it is, it has this seed
        found = [error for error in leaves(group) if not isinstance(error, ViolationError)]
        return "".join(traceback.format_exception(found[0] if found else group)[-6:])
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None


def _too_long(_signal: int, _frame: object) -> None:
    """A schedule whose clock does not move on ends in the place where it is stuck."""
    raise TimeoutError(f"a storm takes longer than {LIMIT_S} s")


def play_range(first: int, count: int) -> dict[int, str]:
    warnings.simplefilter("error")
    found = {seed: play(seed) for seed in range(first, first + count)}
    return {seed: problem for seed, problem in found.items() if problem}


def workers(count: int | None) -> ProcessPoolExecutor:
    """Spawned, so that every process imports for itself and owes nothing to this one."""
    return ProcessPoolExecutor(count, get_context("spawn"), _end_with_parent)


def _end_with_parent() -> None:
    """Let this process end when the one that started it is gone, however it went.

    Its queue tells nothing of that: every other worker holds the same one open.
    """
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def sweep(first: int, count: int) -> int:
    """Many storms on every core."""
    started = time.monotonic()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    broken = 0
    with workers(cores) as pool:
        tasks = [
            pool.submit(play_range, start, min(SEEDS_A_TASK, first + count - start))
            for start in range(first, first + count, SEEDS_A_TASK)
        ]
        for task in as_completed(tasks):
            found = task.result()
            broken += len(found)
            for seed, problem in found.items():
                print(f"--- make chaos SEED={seed}\n{problem}", flush=True)
    seconds = time.monotonic() - started
    print(f"{count} storms from seed {first}: {broken} with violations, {seconds:.0f} s")
    return 1 if broken else 0
