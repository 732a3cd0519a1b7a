"""README.md, "A client in anything else": the commands are run on the programs that they name."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import trio

from tests.deploy.tools import PATH, ROOT, program
from tests.documents import blocks
from tests.server.server_process import server_process
from tests.server.wire_client import KEY

SAID = (ROOT / "voxtral_actors" / "demo" / "sample.txt").read_text("utf-8").strip()


async def test_a_shell_sends_a_file_and_gets_its_text() -> None:
    """The connection stays open afterwards, so the test ends it, as Ctrl-C would."""
    for name in ("sox", "websocat"):
        program(name)
    [script] = blocks("README.md", "sh", "A client in anything else")
    events = []
    with trio.fail_after(120):
        async with server_process() as server:
            await server.said("engine.ready")
            here = f"127.0.0.1:{await server.port()}"
            process = await trio.lowlevel.open_process(
                ["/bin/bash", "-uc", script.replace("127.0.0.1:8000", here)],
                cwd=ROOT,
                env={"PATH": PATH, "VOXTRAL_API_KEY": KEY},
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            try:
                assert process.stdout is not None
                printed = b""
                async for data in process.stdout:
                    printed += data
                    *lines, _ = printed.split(b"\n")
                    events = [json.loads(line) for line in lines]
                    if events and events[-1]["type"] == "transcription.done":
                        break
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                with trio.move_on_after(5, shield=True):
                    await process.wait()

    kinds = [event["type"] for event in events]
    assert kinds[0] == "session.created"
    assert set(kinds[1:-1]) == {"transcription.delta"}
    assert events[-1]["payload"]["text"] == SAID
