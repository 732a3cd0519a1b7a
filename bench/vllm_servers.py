"""Our server and vLLM's own, started on the same model files, and what each counts as a step.

Both run vLLM's CPU build here, with the arguments that the model needs and else with their own
defaults. The two are alive at the same time, and only one of them has sessions: what the other one
uses meanwhile is measured, and next to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import attrs

from bench.load_voices import MODEL, Target
from bench.processes import HOST, Server, free_port, python, serving
from voxtral_actors.engine import modelfolder
from voxtral_actors.settings import load

KEY = "bench-only"
MAX_SESSIONS = 64
MAX_TOKENS = 4096
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
OURS, THEIRS = "voxtral-actors", "vLLM"


@attrs.frozen
class Contender:
    """A running server, how to speak to it, and its counter of steps."""

    server: Server
    target: Target
    counter: str | None
    """Of its `/metrics`, for the steps; None: each step shows as a delta."""

    @property
    def name(self) -> str:
        return self.server.name

    def steps(self) -> float:
        """Steps of sessions so far, by the server's own count; 0 where it does not count."""
        if self.counter is None:
            return 0.0
        with urlopen(f"http://{HOST}:{self.server.port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return sum(
            float(value)
            for value in re.findall(rf"^{self.counter}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        )


@contextmanager
def ours(folder: Path, log: Path | None = None) -> Iterator[Contender]:
    port = free_port()
    environment = {
        "VOXTRAL_API_KEY": KEY,
        "MAX_CONCURRENT_CONNECTIONS": str(MAX_SESSIONS),
        "VOXTRAL_ENGINE": "vllm",
        "VOXTRAL_HOST": HOST,
        "VOXTRAL_PORT": str(port),
        "VOXTRAL_LOG_LEVEL": "warning",
        "VOXTRAL_MODEL_DIR": str(folder),
        "VOXTRAL_SERVED_MODEL_NAME": MODEL,
        "VOXTRAL_TRANSCRIPTION_DELAY_MS": "480",
        "VLLM_ENFORCE_EAGER": "true",
        "VLLM_MAX_MODEL_LEN": str(MAX_TOKENS),
        "VLLM_MAX_NUM_SEQS": str(MAX_SESSIONS),
        "VLLM_ENGINE_ARGS": '{"dtype": "bfloat16"}',
    }
    modelfolder.adopt(load(environment))
    command = python("voxtral_actors", "serve")
    env = ENVIRONMENT | environment
    with serving(OURS, command, port, ready="/readyz", env=env, log=log) as server:
        target = Target(f"ws://{HOST}:{port}/ws", binary=False, api_key=KEY)
        yield Contender(server, target, "voxtral_engine_vllm_frames_total")


@contextmanager
def theirs(folder: Path, log: Path | None = None) -> Iterator[Contender]:
    port = free_port()
    arguments = {
        "--model": folder,
        "--served-model-name": MODEL,
        "--tokenizer-mode": "mistral",
        "--config-format": "mistral",
        "--load-format": "mistral",
        "--dtype": "bfloat16",
        "--max-model-len": MAX_TOKENS,
        "--max-num-seqs": MAX_SESSIONS,
        "--host": HOST,
        "--port": port,
    }
    options = [part for pair in arguments.items() for part in pair]
    # Without its statistics it is cheaper.
    switches = ("--enforce-eager", "--disable-log-stats", "--disable-uvicorn-access-log")
    command = python("vllm.entrypoints.openai.api_server", *options, *switches)
    # Without our plugin, which this environment has too.
    env = ENVIRONMENT | {"VLLM_PLUGINS": "", "VLLM_LOGGING_LEVEL": "WARNING"}
    with serving(THEIRS, command, port, ready="/health", env=env, log=log) as server:
        target = Target(f"ws://{HOST}:{port}/v1/realtime", dialect="realtime")
        yield Contender(server, target, None)
