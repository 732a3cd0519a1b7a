"""The command behind `make chaos`: plays storms on every core, or one with its trace.

    python -m tests.chaos              2000 storms, from seed 0 on
    python -m tests.chaos --seeds N    so many
    python -m tests.chaos --first N    from another seed on
    python -m tests.chaos --seed N     one, with its trace

The status is 1 if any promise was broken; each broken one names the command that plays it again.
"""

from __future__ import annotations

import argparse
import sys
import traceback

from tests.chaos import storms
from tests.chaos.sweep import sweep
from tests.chaos.trace import Trace


def show(seed: int) -> int:
    """One storm with its trace."""
    status = 0
    traces: list[Trace] = []
    try:
        storms.run(seed, traces)
    except Exception:
        traceback.print_exc()
        status = 1
    for trace in traces:
        print("\n".join(trace.lines))
        print(f"seed {seed}: {len(trace.lines)} lines, digest {trace.digest()}")
    return status


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return show(arguments.seed)
    return sweep(arguments.first, arguments.seeds)


if __name__ == "__main__":
    sys.exit(main())
