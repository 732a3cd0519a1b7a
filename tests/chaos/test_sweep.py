"""The processes of a sweep end with it, even if it is killed and can tell nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENDS_S = 30
"""A worker ends at once; the rest is for a machine that has other things to do."""

CODE = """
import os, signal
from tests.chaos.sweep import workers

with workers(2) as pool:
    print(pool.submit(os.getpid).result(), flush=True)
    signal.pause()
"""


def test_workers_end_with_a_sweep_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, cwd=ROOT) as sweep:
        assert sweep.stdout is not None
        assert sweep.stdout.readline()
        sweep.kill()
        sweep.communicate(timeout=ENDS_S)  # ends with the last process that has the pipe open
