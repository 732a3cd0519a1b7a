"""The demo: a real server and a real client in one process, and the sample spoken between them.

Everything that production runs is in it, from the socket to the engine actor; only the settings are
made here: the loopback, a free port, a random key, the embedded engine.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import signal
import sys
from importlib import resources
from pathlib import Path

import click
import trio

from voxtral_actors import groups, logs
from voxtral_actors.client import ClientError, connect
from voxtral_actors.client.showing import Transcript, choose_view, describe_session
from voxtral_actors.client.transcribing import How, transcribe_file
from voxtral_actors.engine.registry import EngineSetupError
from voxtral_actors.limits import DEMO_READY_S, DEMO_TRANSCRIPT_S
from voxtral_actors.server import app
from voxtral_actors.settings import Settings, load


class DemoFailedError(Exception):
    """The demo did not get the transcript that it should."""


def main(once: bool) -> int:
    """Run the demo; returns the exit status: 0 if the transcript is right."""
    logs.configure("warning", "text", ())
    status = 0
    try:
        trio.run(_demo, once)
    except* (DemoFailedError, ClientError, EngineSetupError, OSError) as group:
        click.secho(f"The demo failed. {groups.describe(group)}", fg="red", err=True)
        status = 1
    return status


async def _demo(once: bool) -> None:
    key = secrets.token_urlsafe(16)
    environment = {
        "VOXTRAL_API_KEY": key,
        "MAX_CONCURRENT_CONNECTIONS": "8",
        "VOXTRAL_PORT": "0",
        "VOXTRAL_ENGINE": "sphinx",
    }
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def until_signal() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel(reason="a signal")

            nursery.start_soon(until_signal)
            running = await nursery.start(_serve, load(environment))
            click.secho(f"Server: {running.url}", dim=True, err=True)
            with trio.move_on_after(DEMO_READY_S) as starting:
                await running.service.engine.wait_ready()
            if starting.cancelled_caught:
                raise DemoFailedError(f"the engine was not ready within {DEMO_READY_S:g} s")
            _check(await _transcribe(running.url, key))
            if not once:
                _say_how_to_connect(running.url, key)
                await trio.sleep_forever()
            nursery.cancel_scope.cancel(reason="done")


async def _serve(settings: Settings, *, task_status: trio.TaskStatus[app.Running]) -> None:
    await app.run(settings, task_status=task_status)


async def _transcribe(url: str, key: str) -> Transcript:
    """Stream the sample at live pace and print what comes."""
    sample = resources.files("voxtral_actors.demo") / "sample.flac"
    view = choose_view(as_json=False, quiet=False, on_broken_pipe=lambda: None)
    with resources.as_file(sample) as path, trio.move_on_after(DEMO_TRANSCRIPT_S):
        async with connect(url, api_key=key) as session:
            view.note(describe_session(session.created))
            transcript = await transcribe_file(session, str(path), How(), view)
            view.end(transcript)
            return transcript
    raise DemoFailedError(f"there was no transcript within {DEMO_TRANSCRIPT_S:g} s")


def _check(transcript: Transcript) -> None:
    """Compare the transcript, word for word, with what was said."""
    sample = resources.files("voxtral_actors.demo") / "sample.txt"
    expected = sample.read_text(encoding="utf-8").strip()
    if transcript.error is not None:
        raise DemoFailedError(transcript.error)
    if _words(transcript.text) != _words(expected):
        raise DemoFailedError(f"expected {expected!r}, got {transcript.text!r}")
    click.secho("The transcript is right.", fg="green", err=True)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def _say_how_to_connect(url: str, key: str) -> None:
    page = url.replace("ws://", "http://").removesuffix("ws")
    program = _shown(Path(sys.executable).with_name("voxtral-actors"))
    with resources.as_file(resources.files("voxtral_actors.demo") / "sample.flac") as path:
        sample = _shown(path)
    click.echo(
        f"""
The server stays up until Ctrl-C. To speak to it, open this in a browser on this machine:

  {page}#key={key}

In another terminal, in the same folder, with the sample or with a recording of your own:

  export VOXTRAL_API_KEY={key} VOXTRAL_URL={url}
  {program} transcribe {sample}
  {program} top --once
  curl {page}readyz
"""
    )


def _shown(path: Path) -> str:
    """A path for a shell in the folder of this process."""
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return shlex.quote(str(path))
