"""Every program in `examples/` runs as it stands, against the real server process."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.client.stub import CREATED, Peer, polite, serving
from tests.client.test_listen import FakeDevice
from tests.server.harness import until
from tests.server.server_process import ServerProcess, server_process
from tests.server.wire_client import KEY
from voxtral_actors.client import connect
from voxtral_actors.client.microphone import Microphone
from voxtral_actors.protocol.commands import Append, Start
from voxtral_actors.protocol.events import Delta

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
DEMO = ROOT / "voxtral_actors" / "demo"
SAMPLE = DEMO / "sample.flac"
WORDS = (DEMO / "sample.txt").read_text(encoding="utf-8").split()
LIMIT_S = 60
BLOCK = bytes(range(256)) * 10


async def run(server: ServerProcess, name: str, *args: str | Path) -> str:
    """What an example prints."""
    await server.said("engine.ready")
    done: subprocess.CompletedProcess[bytes] = await trio.run_process(
        [sys.executable, ROOT / "examples" / f"{name}.py", *args],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "VOXTRAL_API_KEY": KEY,
            "VOXTRAL_URL": f"ws://127.0.0.1:{await server.port()}/ws",
        },
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def example(name: str) -> Any:
    return importlib.import_module(f"examples.{name}")


def test_every_example_is_tested_and_listed() -> None:
    readme = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")

    assert [name for name in EXAMPLES if f"]({name}.py)" not in readme] == []
    assert {"asyncio_user", "captions", "transcribe_file", "voice_agent"} == set(EXAMPLES)


async def test_transcribe_file_and_asyncio_user_and_voice_agent() -> None:
    pytest.importorskip("pocketsphinx", reason="the embedded engine is not installed")
    with trio.fail_after(LIMIT_S):
        async with server_process() as server:
            text = await run(server, "transcribe_file", SAMPLE)
            assert text.split() == WORDS

            *deltas, done = (await run(server, "asyncio_user", SAMPLE)).splitlines()
            assert deltas
            assert all(line.startswith("Delta(") for line in deltas)
            assert done.startswith("Done(")
            assert " ".join(WORDS) in done

            said = await run(server, "voice_agent", SAMPLE)
            assert said.splitlines() == [
                f"user: {' '.join(WORDS)}",
                "agent: (has finished speaking)",
            ]


async def test_voice_agent_is_interrupted_while_it_answers_and_while_it_listens() -> None:
    """What is cut off is not answered, or not to its end."""
    answering: list[str] = []
    answered: list[str] = []

    async def answer(text: str) -> None:
        answering.append(text)
        if len(answering) == 1:
            await trio.sleep_forever()
        answered.append(text)

    send, unended = trio.open_memory_channel[bytes](1)
    with trio.fail_after(LIMIT_S), send, unended:
        async with (
            serving(polite) as stub,
            connect(stub.url) as session,
            trio.open_nursery() as nursery,
        ):
            agent = example("voice_agent").Agent(session, nursery, answer)
            agent.hear([BLOCK] * 2)
            await until(lambda: bool(answering), "the agent answers")
            send.send_nowait(BLOCK)
            agent.hear(unended)
            await until(lambda: stub.peers[0].kinds[-2:] == ["Start", "Append"], "it listens again")
            agent.hear([BLOCK] * 25)

    assert answering == ["one two 0.16", "one two 2"]
    assert answered == ["one two 2"]
    assert session.statistics().utterances == 0


async def test_captions_outlast_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The microphone is a scripted one; the first connection dies in the middle."""
    device, out = FakeDevice(), io.StringIO()
    captions = example("captions")
    microphones: list[Microphone] = []

    class Recorded(Microphone):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            microphones.append(self)

    async def script(peer: Peer) -> None:
        if len(stub.peers) > 1:
            return await polite(peer)
        await peer.send(CREATED)
        start = await peer.expect(Start)
        await peer.expect(Append)
        await peer.send(Delta("s", start.request_id, "one ", 80))
        await until(lambda: out.getvalue() == "one ", "the words are shown")
        return await peer.ws._stream.aclose()

    monkeypatch.setattr(captions, "Microphone", Recorded)
    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub, trio.open_nursery() as nursery:
            nursery.start_soon(captions.captions, stub.url, KEY, device, out)
            await until(lambda: device.running, "the microphone is on")
            device.speak(BLOCK, 10)
            await until(lambda: len(stub.peers) == 2 and bool(stub.peers[1].audio), "it goes on")
            microphones[0].stop()

    assert out.getvalue() == "one two 0.8\n"
    assert stub.peers[1].audio == BLOCK * 10
