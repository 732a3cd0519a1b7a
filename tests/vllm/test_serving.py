"""The server process with this engine, from its command line to that of its client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import soundfile
import trio

from tests.server.server_process import ServerProcess
from tests.vllm import sounds
from tests.vllm.vllm_harness import (
    KV_CACHE_GB,
    SETTINGS,
    START_S,
    engine_core,
    family,
    nothing_left,
    shared_memory,
)
from voxtral_actors.client import connect
from voxtral_actors.limits import METRICS_AGE_S, SAMPLE_RATE
from voxtral_actors.protocol.events import Delta

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / ".env.example"
KEY = "change-me"
"""The key in the example."""
SESSIONS = 8


def _environment(model: Path) -> dict[str, str]:
    """What a CPU and a model of one's own need beside the example."""
    return {
        **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
        "VOXTRAL_MODEL_DIR": str(model),
        "VOXTRAL_PORT": "0",
        "VOXTRAL_LOG_FORMAT": "json",
        "VOXTRAL_REPLAY_BUDGET_S": "140",  # a start on a CPU that others share
        "VLLM_ENFORCE_EAGER": "true",
        "VLLM_MAX_MODEL_LEN": SETTINGS["VLLM_MAX_MODEL_LEN"],
        "VLLM_MAX_NUM_SEQS": SETTINGS["VLLM_MAX_NUM_SEQS"],
        "VLLM_ENGINE_ARGS": SETTINGS["VLLM_ENGINE_ARGS"],
        "VLLM_CPU_KVCACHE_SPACE": KV_CACHE_GB,
    }


@attrs.define
class VllmServerProcess(ServerProcess):
    """Its log has lines of vLLM's processes in between: as JSON with keys of their own, and some
    that libraries write past all logging."""

    noise: list[str] = attrs.field(factory=list)

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        buffer = b""
        async for data in self.process.stderr:
            *lines, buffer = (buffer + data).split(b"\n")
            read = [json.loads(line) for line in lines if line.startswith(b"{")]
            self.log += [line for line in read if "event" in line]
            self.noise += [line.decode() for line in lines if not line.startswith(b"{")]
            self._news.set()
            self._news = trio.Event()


@asynccontextmanager
async def serving(model: Path) -> AsyncIterator[VllmServerProcess]:
    """`voxtral-actors serve` with the example for its settings."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "voxtral_actors", "serve", "--env-file", str(EXAMPLE)],
        env=_environment(model),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    server = VllmServerProcess(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.read_log)
        try:
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
            with trio.move_on_after(20, shield=True):
                await process.wait()
            if process.poll() is None:
                process.kill()
        nursery.cancel_scope.cancel()


async def voxtral_actors(*arguments: str, **env: str) -> str:
    """Run the command line, which must succeed; returns its stdout."""
    done = await trio.run_process(
        [sys.executable, "-m", "voxtral_actors", *arguments],
        env={"PATH": os.environ["PATH"], **env},
        capture_stdout=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.decode()


async def transcribed(server: ServerProcess, file: Path) -> dict[str, Any]:
    url = f"ws://127.0.0.1:{await server.port()}/ws"
    line = await voxtral_actors(
        "transcribe", "--fast", "--json", "--url", url, str(file), VOXTRAL_API_KEY=KEY
    )
    answer: dict[str, Any] = json.loads(line)
    return answer


def starts(server: ServerProcess) -> int:
    return sum(line["event"] == "engine.ready" for line in server.log)


async def killed_under_sessions(server: ServerProcess) -> float:
    """Kill vLLM while sessions stream: all of them get their text from the next one. Returns how
    long `/readyz` still said that all is well."""
    assert (await server.http("/readyz")).status == 200
    url = f"ws://127.0.0.1:{await server.port()}/ws"
    pcm = sounds.pcm(sounds.speech(3.0))
    talking = trio.Semaphore(0)
    killed = trio.Event()
    texts: list[tuple[str, str]] = []

    async def talk() -> None:
        async with (
            connect(url, api_key=KEY, reconnect=None) as session,
            session.utterance() as utterance,
        ):
            await utterance.send(pcm)
            told = [await anext(utterance)]
            talking.release()
            await killed.wait()
            await utterance.finish()
            told += [event async for event in utterance]
            deltas = [event.delta for event in told if isinstance(event, Delta)]
            texts.append(("".join(deltas), await utterance.text()))

    async with trio.open_nursery() as nursery:
        for _ in range(SESSIONS):
            nursery.start_soon(talk)
        for _ in range(SESSIONS):
            await talking.acquire()
        os.kill(engine_core(server.process.pid), signal.SIGKILL)
        at = trio.current_time()
        killed.set()
        while (await server.http("/readyz")).status == 200:  # noqa: ASYNC110 - as a probe does
            await trio.sleep(0.02)
        took = trio.current_time() - at
        assert (await server.http("/healthz")).status == 200
    assert all(told == text for told, text in texts), texts
    assert len(texts) == SESSIONS
    return took


async def figure(server: ServerProcess, name: str) -> float:
    await trio.sleep(2 * METRICS_AGE_S)
    lines = (await server.http("/metrics")).body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"voxtral_{name}"))


async def test_p15_serve_answers_transcribe_and_survives_its_engines_death(
    model: Path, tmp_path: Path, nobody_else: None
) -> None:
    folder, audio = tmp_path / "model", tmp_path / "speech.wav"
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns(".*"))
    soundfile.write(audio, sounds.speech(6.0), SAMPLE_RATE)
    await voxtral_actors("fetch", "--local", VOXTRAL_MODEL_DIR=str(folder))
    with trio.fail_after(2 * START_S):
        async with serving(folder) as server:
            assert (await server.http("/readyz")).status == 503
            ready = await server.said("engine.ready")
            assert (ready["engine"], ready["slots"]) == ("vllm", 16)

            first = await transcribed(server, audio)
            assert first["error"] is None
            assert first["text"]
            assert first["usage"]["completion_tokens"] > 6 / 0.08

            # Ctrl-C in a terminal reaches every process; vLLM's must go on while the server drains.
            for process in family(server.process.pid):
                process.send_signal(signal.SIGINT)
            assert (await transcribed(server, audio))["text"] == first["text"]

            memory = shared_memory(family(server.process.pid))
            assert memory
            took = await killed_under_sessions(server)
            print(f"not ready {took:.2f} s after the engine was killed")
            assert took < 1

            assert starts(server) == 2
            assert (await server.http("/readyz")).status == 200
            frames = await figure(server, "engine_vllm_frames_total")
            again = await transcribed(server, audio)
            assert (again["text"], again["usage"]) == (first["text"], first["usage"])
            frames = await figure(server, "engine_vllm_frames_total") - frames
            assert frames == first["usage"]["completion_tokens"]
            assert await figure(server, "engine_deaths_total") == 1
            # Neither the plugin nor what runs in the workers was lost with the first engine.
            assert await figure(server, "engine_vllm_flat_sessions") == 1
            assert await figure(server, "engine_vllm_batched_audio") == 1
            assert await figure(server, "replays_total") == SESSIONS

            processes = family(server.process.pid)
            memory |= shared_memory(processes)
            server.signal(signal.SIGTERM)
            assert await server.exit_status() == 0
            await nothing_left(processes, memory)
    # The second is who says in Python that semaphores or shared memory were left behind.
    assert not [line for line in server.noise if "Traceback" in line or "resource_tracker" in line]
    tokenizer = json.loads((folder / "tekken.json").read_bytes())
    assert tokenizer["audio"]["transcription_delay_ms"] == 400


async def test_a_killed_server_leaves_no_process_behind(
    model: Path, tmp_path: Path, nobody_else: None
) -> None:
    """Not even one that holds the memory of the GPU, which the next server will need."""
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    with trio.fail_after(START_S):
        async with serving(folder) as server:
            await server.said("engine.ready")
            processes = family(server.process.pid)
            memory = shared_memory(processes)
            assert len(processes) >= 2
            assert memory

            server.signal(signal.SIGKILL)
            await server.exit_status()
            await nothing_left(processes, memory)
