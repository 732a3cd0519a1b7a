"""The commands, as a process and inside this one, against the scripted server."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trio
from click.testing import CliRunner, Result
from rich.console import Console

from tests.client.stub import CREATED, KEY, Peer, polite, serving
from voxtral_actors.client import cli, showing
from voxtral_actors.client.showing import Output, TerminalView, Transcript
from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.protocol.closing import Close, farewell
from voxtral_actors.protocol.commands import Append, Start
from voxtral_actors.protocol.events import Delta, Error

LIMIT_S = 20
RUN = "import sys; from voxtral_actors.client import cli; getattr(cli, sys.argv.pop(1))()"


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    soundfile.write(path, np.zeros(SAMPLE_RATE // 2, np.float32), SAMPLE_RATE)
    return path


async def run(
    command: str, *arguments: str | Path, key: str | None = KEY, url: str | None = None
) -> Result:
    """A command in a thread of this process, where it gets no signals."""
    invoke = partial(
        CliRunner().invoke,
        getattr(cli, command),
        [str(argument) for argument in arguments],
        env={"VOXTRAL_API_KEY": key, "VOXTRAL_URL": url},
    )
    return await trio.to_thread.run_sync(invoke)


async def test_text_alone_on_stdout_and_the_rest_on_stderr(speech: Path) -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(polite) as stub:
            result = await run("transcribe", "--url", stub.url, speech, speech, key=f"{KEY},old")

        assert result.exit_code == 0
        assert result.stdout == "one two 0.5\none two 0.5\n"
        assert "model tiny, engine scripted" in result.stderr
        assert f"{speech}: 0.5 s of audio" in result.stderr
        assert len(stub.peers) == 1, "several files go over one connection"
        assert stub.peers[0].headers[b"authorization"] == f"Bearer {KEY}".encode()
        assert KEY not in result.output


async def test_json_lines(speech: Path, tmp_path: Path) -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(polite) as stub:
            result = await run(
                "transcribe", "--url", stub.url, "--json", "-q", tmp_path / "no.wav", speech
            )

        assert result.exit_code == 1
        assert result.stderr == ""
        missing, good = [json.loads(line) for line in result.stdout.splitlines()]
        assert missing["error"] == "No such file or directory"
        assert good["text"] == "one two 0.5"
        assert good["audio_seconds"] == 0.5
        assert 0 <= good["final_latency_s"] < 5
        assert 0 <= good["first_latency_s"] < 5
        assert good["usage"]["total_tokens"] == 5
        assert good["error"] is None


async def test_live_takes_as_long_as_the_audio_and_fast_does_not(speech: Path) -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(polite) as stub:
            took = []
            for pace in ("--live", "--fast"):
                begun = trio.current_time()
                result = await run("transcribe", pace, "--url", stub.url, "-q", speech)
                took.append(trio.current_time() - begun)
                assert (result.exit_code, result.stderr) == (0, "")
        assert took[0] >= 0.5
        assert took[1] < took[0]


async def test_files_that_cannot_be_read_need_no_server(tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("hello")
    with trio.fail_after(LIMIT_S):
        result = await run("transcribe", "--url", "ws://127.0.0.1:1/ws", bad)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"{bad}: failed: is not audio that can be read")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "Missing argument"),
        (["--url", "http://x", "a.wav"], "is no WebSocket URL"),
        (["--url", "https://h.example:8443/a/ws", "a.wav"], "'https://h.example:8443/a/ws' is no"),
        (["--url", "h.example:8443/ws", "a.wav"], "'h.example:8443/ws' is no WebSocket URL"),
        (["--url", "http://me:s3cret@h/ws?api_key=s3cret", "a.wav"], "'http://…@h/ws?…' is no"),
        (["--url", "me:s3cret@h/ws", "a.wav"], "'…@h/ws' is no WebSocket URL"),
        (["--chunk-ms", "5", "a.wav"], "20<=x<=1000"),
        (["--api-key", "a b", "a.wav"], "HTTP header"),
    ],
)
async def test_a_wrong_command_line_is_2(arguments: list[str], hint: str) -> None:
    result = await run("transcribe", *arguments)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert "s3cret" not in result.stderr


async def test_a_refusal_is_3_and_says_what_to_do(speech: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(farewell("sess-1", "connection", Close.BAD_KEY))
        await peer.close(1008, "authentication_failed")

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub:
            with_key = await run("transcribe", "--url", stub.url, speech)
            without = await run("transcribe", "--url", stub.url, "--json", speech, key=None)
        assert with_key.exit_code == without.exit_code == 3
        assert "not one of the server's" in with_key.stderr
        assert "set VOXTRAL_API_KEY" in json.loads(without.stdout)["error"]


async def test_wait_outlasts_a_server_that_is_starting(speech: Path) -> None:
    visits = []

    async def script(peer: Peer) -> None:
        visits.append(peer)
        if len(visits) == 1:
            error = farewell("sess-1", "connection", Close.ENGINE_UNAVAILABLE)
            assert isinstance(error, Error)
            error.details["retry_after_s"] = 0.05
            await peer.send(error)
            await peer.close(1013, "engine_unavailable")
        else:
            await polite(peer)

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub:
            result = await run("transcribe", "--fast", "--url", stub.url, "--wait", "5", speech)
        assert result.exit_code == 0
        assert "trying again in 0.05 s" in result.stderr


async def test_a_lost_connection_fails_its_file_and_not_the_next(speech: Path) -> None:
    visits = []

    async def script(peer: Peer) -> None:
        visits.append(peer)
        if len(visits) > 1:
            return await polite(peer)
        await peer.send(CREATED)
        start = await peer.expect(Start)
        assert isinstance(start, Start)
        await peer.expect(Append)
        await peer.send(Delta("s", start.request_id, "half", 80))
        return await peer.close(1012, "shutting_down")

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub:
            result = await run("transcribe", "--fast", speech, speech, url=stub.url)
        assert result.exit_code == 1
        assert result.stdout == "half\none two 0.5\n"
        assert "closed with 1012 shutting_down" in result.stderr


async def test_ctrl_c_cancels_on_the_server_and_is_130(tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(60 * SAMPLE_RATE, np.float32), SAMPLE_RATE)
    with trio.fail_after(LIMIT_S):
        connected = trio.Event()

        async def script(peer: Peer) -> None:
            connected.set()
            await polite(peer)

        async with serving(script) as stub, trio.open_nursery() as nursery:
            run_process = partial(
                trio.run_process,
                [sys.executable, "-c", RUN, "transcribe", "--url", stub.url, str(long)],
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            process = await nursery.start(run_process)
            await connected.wait()
            await stub.peers[0].listening.wait()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
            await stub.peers[0].left.wait()
        assert "Cancel" in stub.peers[0].kinds


async def test_a_reader_that_goes_away_ends_the_run(speech: Path) -> None:
    """As in `voxtral-actors transcribe *.wav | head -1`."""
    with trio.fail_after(LIMIT_S):
        async with serving(polite) as stub:
            read, write = os.pipe()
            os.close(read)
            with os.fdopen(write, "wb") as stdout:  # noqa: ASYNC231 - it waits for nothing
                done = await trio.run_process(
                    [sys.executable, "-c", RUN, "transcribe", "--url", stub.url, str(speech)],
                    check=False,
                    stdout=stdout,
                    capture_stderr=True,
                )
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("form", ["--json", "--quiet"])
async def test_a_stdout_that_is_full_fails_with_one_line(speech: Path, form: str) -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(polite) as stub:
            with Path("/dev/full").open("wb") as stdout:  # noqa: ASYNC230 - it waits for nothing
                done = await trio.run_process(
                    [sys.executable, "-c", RUN, "transcribe", form, "--url", stub.url, str(speech)],
                    check=False,
                    stdout=stdout,
                    capture_stderr=True,
                )
        assert done.returncode == 1
        said = done.stderr.decode().splitlines()
        assert "stdout cannot be written: No space left on device" in said
        assert "Traceback" not in done.stderr.decode()


@pytest.mark.parametrize("command", ["transcribe", "listen"])
async def test_help_answers_the_questions(command: str) -> None:
    result = await run(command, "--help")
    assert result.exit_code == 0
    for answer in ("VOXTRAL_API_KEY", "Exit status", "Examples", "130", "ws://127.0.0.1:8000/ws"):
        assert answer in result.stdout


def test_a_terminal_shows_progress_and_keeps_the_whole_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showing, "_REFRESH_S", 0.0)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=40)
    view = TerminalView(Output(lambda: None), console)

    view.begin("talk.wav", 10.0)
    for index in range(200):
        view.delta(f"word{index} \x1b[31m")
        view.sent(index / 20)
    view.end(Transcript("talk.wav", text="the whole text", audio_seconds=10.0))
    view.close()

    assert capsys.readouterr().out == "the whole text\n"
    drawn = screen.getvalue()
    assert "talk.wav" in drawn
    assert "word199" in drawn
    assert "[31m" in drawn
    assert "\x1b[31m" not in drawn, "text must not steer the terminal"
