"""Runs inside vLLM's workers: what the server can ask of one. It tells how many streams have room,
has their audio taken together (`vllm_batch`), and does not outlive the server.

vLLM's own figure for that allows each request all the tokens of the largest batches. A stream of
ours has one frame in flight, and the encoder's keys and values are ten times as large as those of
the decoder: by vLLM's figure a GPU for fifty streams has room for seven.

When the server stops, it takes vLLM's processes with it. When it is killed, nobody does: vLLM's
engine process would wait for it for ever, with all its GPU memory. So a worker watches the server,
and takes the engine process with it.

The server names this class in vLLM's `worker_extension_cls`; vLLM mixes it into its worker class.
So this file imports vllm only where it runs.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import Any

from voxtral_actors.engine import vllm_batch


class VoxtralWorker:
    """Methods that the server can call in every worker."""

    vllm_config: Any
    model_runner: Any

    def voxtral_streams(self, in_flight: int) -> float:
        """How many streams of VLLM_MAX_MODEL_LEN tokens fit, each with so many tokens in flight."""
        from vllm.v1.core.kv_cache_utils import get_max_concurrency_for_kv_cache_config

        kv_cache = self.model_runner.kv_cache_config
        frugal: Any = _Frugal(self.vllm_config, in_flight)
        streams = get_max_concurrency_for_kv_cache_config(frugal, kv_cache)
        # One block is vLLM's own, the null block.
        return float(streams * (kv_cache.num_blocks - 1) / kv_cache.num_blocks)

    def voxtral_batch(self, lengths: list[int]) -> str:
        """Take the audio of all streams of a step at once; returns why not, empty if it does."""
        return vllm_batch.install(self.model_runner.get_model(), lengths)

    def voxtral_follow(self, server: int) -> None:
        """End with the process of this number, however it ends."""
        threading.Thread(target=_follow, args=(server,), name="voxtral-follow", daemon=True).start()


def _follow(server: int) -> None:
    import psutil

    line = [psutil.Process(), *psutil.Process().parents()]
    children = [process for process in line if process.ppid() == server]
    if not children:
        return  # the server is on another machine, where vLLM has its own way
    try:
        watched = os.pidfd_open(server)
    except ProcessLookupError:
        pass
    else:
        select.select([watched], [], [])
    for process in children:
        os.kill(process.pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


class _Frugal:
    """vLLM's configuration, but for how many tokens a request may have in flight."""

    def __init__(self, config: Any, in_flight: int) -> None:
        self._config = config
        self.max_in_flight_tokens = in_flight

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)
