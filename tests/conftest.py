"""The rules that make this suite give the same answer every time.

1. Time is virtual. A test that waits uses `autojump_clock`: the clock jumps when every task is
   blocked, so ninety minutes pass in milliseconds and a deadline is met exactly.
2. Nothing sleeps to let something happen. Order comes from `trio.testing.wait_all_tasks_blocked`
   and `Sequencer`, from events, and from what a fake was told to do.
3. Real time only where real processes or sockets run, and there nothing is measured against it
   more closely than a promise in seconds.
4. Every test that waits has a limit: `with trio.fail_after(...)`, inside the test, so that a hang
   ends as a failure with the tasks' tracebacks and the nurseries still unwind.
5. Sockets are on the loopback and on port 0; nothing needs a network, a GPU or a free fixed port.
6. Randomness has a seed, and the seed is in the test's id or in what it prints when it fails.
7. Fakes, not mocks: the scripted engine and the memory transport keep the contract of the real
   ones, and one contract suite runs on both.
8. A warning is an error. A leak (an open channel end, a taken slot, a child process) is a failure.
9. A test of a promise carries its id, as in `test_p18_…`: `pytest -k p18` finds every test of it.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from hypothesis import settings

# The production engine's tests have an environment of their own: `make test-vllm`.
collect_ignore = [] if find_spec("vllm") else ["vllm"]
# So have those of the page: `make test-browser`.
collect_ignore += [] if find_spec("playwright") else ["browser"]

# No deadline: it measures real time. In CI the examples are the same on every run, and none are
# kept from runs before.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")
