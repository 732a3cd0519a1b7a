"""What vLLM takes from environment variables only, set before it is imported.

These are defaults: a variable that the operator has set wins. They are inherited by the processes
that vLLM starts. This is the one place outside the command line that touches the environment, and
it reads nothing out of it.
"""

from __future__ import annotations

import os

DEFAULTS = {
    # vLLM forks by default. A fork of a process with threads may inherit a lock that nobody will
    # ever release, and this one has several.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # Until the engine's own logging is set up, its lines go the way of ours.
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    # transformers, which vLLM uses, has a handler of its own for warnings that say nothing here.
    "TRANSFORMERS_VERBOSITY": "error",
    # A server for people's voices tells nobody how it is used.
    "VLLM_NO_USAGE_STATS": "1",
}


def prepare() -> None:
    """Call it before the first import of vllm."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
