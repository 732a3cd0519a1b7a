"""`voxtral-actors top` against a real server, and against what is none."""

from __future__ import annotations

import io
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from click.testing import CliRunner, Result
from rich.console import Console
from structlog.testing import capture_logs

from tests.engine.scripted import FRAME, Script, speech
from tests.server.harness import Served, serving, until
from tests.server.wire_client import KEY
from voxtral_actors.client import cli, top
from voxtral_actors.client.inspecting import ask
from voxtral_actors.client.running import Interrupts, Server
from voxtral_actors.client.showing import Output

LIMIT_S = 20
HELD = Script(slots=9, hang_after=13 * FRAME)


def url(server: Served) -> str:
    return f"ws://127.0.0.1:{server.port}/ws"


async def run(*arguments: str, key: str | None = KEY) -> Result:
    """The command in a thread, where stdout is no terminal."""
    invoke = partial(CliRunner().invoke, cli.top, arguments, env={"VOXTRAL_API_KEY": key})
    return await trio.to_thread.run_sync(invoke)


@pytest.fixture(autouse=True)
def no_logs() -> Iterator[None]:
    """The server of this process must not write into the command's stdout."""
    with capture_logs():
        yield


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """Somebody who gives the same answer to everything; its URL."""

    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, handle, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/ws"
        nursery.cancel_scope.cancel()


async def test_once_prints_the_server_and_its_sessions_within_80_columns() -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(HELD) as server, server.session() as busy, server.session() as calm:
            await busy.start("call\x1b[31m-7 with a very long name")
            await busy.send(speech(4))
            await busy.next()
            heard = server.scripted.streams[0]
            await until(lambda: heard.consumed == 13 * FRAME, "the engine is too slow")
            result = await run("--once", "--url", url(server))

    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in result.stdout
    assert lines[0] == ("server ready: engine scripted ready, life 1, deaths 0")
    assert lines[1] == "sessions 2/8, slots 1/9, lag 3.0s, waiting 3.0s"
    assert lines[2].startswith("loop ")
    assert lines[4].split() == [
        "SESSION", "PEER", "AGE", "STATE", "LAG", "QUEUES", "UTTERANCE",
    ]  # fmt: skip
    assert busy.created is not None
    assert calm.created is not None
    first, second = lines[5:]
    assert first.startswith(busy.created.id[:13] + " 127.0.0.1:")
    assert " active " in first
    assert first.endswith(" 3.0s   0/0/0 call[31m…")
    assert second.startswith(calm.created.id[:13])
    assert second.split()[3:] == ["idle", "0.0s", "0/0/0"]


async def test_nobody_there_is_3_and_says_what_to_do() -> None:
    with trio.fail_after(LIMIT_S):
        result = await run("--url", "ws://127.0.0.1:1/ws")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr == (
        "cannot connect: cannot reach ws://127.0.0.1:1/ws: Connection refused;"
        " is the server running? (voxtral-actors serve, or --url)\n"
    )


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("wrong", "the key is not one of the server's"),
        (None, "set VOXTRAL_API_KEY or use --api-key"),
    ],
)
async def test_a_wrong_key_is_3_and_says_so(key: str | None, hint: str) -> None:
    with trio.fail_after(LIMIT_S):
        async with serving() as server:
            result = await run("--url", url(server), key=key)
    assert result.exit_code == 3
    assert "authentication_failed" in result.stderr
    assert hint in result.stderr


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "is answered with 404"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "answered with 302"),
        (HEAD + b"<html>", "is not answered as this server does"),
        (HEAD + b'{"status": "ready"}', "missing required field `process`"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        (b"", "cannot reach"),
    ],
    ids=["404", "redirect", "not JSON", "other JSON", "not HTTP", "nothing"],
)
async def test_what_is_no_such_server_is_3_and_says_why(answer: bytes, said: str) -> None:
    with trio.fail_after(LIMIT_S):
        async with answering(answer) as address:
            result = await run("--url", address)
    assert result.exit_code == 3
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert result.stderr.count("\n") == 1


async def test_the_path_beside_a_prefixed_websocket_is_asked() -> None:
    got = b""

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal got
        got = bytes(await stream.receive_some())
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, handle, 0, host="127.0.0.1")
            (listener,) = await nursery.start(serve)
            port = listener.socket.getsockname()[1]
            await run("--url", f"ws://127.0.0.1:{port}/speech/ws?x=1")
            nursery.cancel_scope.cancel()
    assert got.startswith(b"GET /speech/debug/actors?limit=100 HTTP/1.1\r\n")
    assert f"Authorization: Bearer {KEY}".encode() in got


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal of 80 by 24 in place of stdout."""
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=80, height=24)
    monkeypatch.setattr(top, "Console", lambda: console)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    return drawn


async def test_a_terminal_is_drawn_until_ctrl_c_and_outlasts_a_restart(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def counted(address: str, key: str | None, rows: int) -> object:
        nonlocal asked
        asked += 1
        assert 0 < rows < 24
        return await ask("ws://127.0.0.1:1/ws" if asked == 2 else address, key, rows)

    monkeypatch.setattr(top, "ask", counted)
    with trio.fail_after(LIMIT_S):
        async with serving() as server, server.session(), trio.open_nursery() as nursery:
            interrupts, status = Interrupts(), -1

            async def watch() -> None:
                nonlocal status
                where = Server(url(server), KEY)
                status = await top.watch(where, 0.01, False, Output(lambda: None), interrupts)

            nursery.start_soon(watch)
            await until(lambda: asked >= 4, "nothing is asked")
            assert interrupts.soften is not None
            interrupts.soften()
    assert status == 0
    screens = terminal.getvalue()
    assert "sess-" in screens
    assert "trying again" in screens
    assert screens.index("sess-") < screens.index("trying again") < screens.rindex("sess-")
    assert screens.endswith("\x1b[?25h\x1b[?1049l"), "the screen is given back"


async def test_a_terminal_that_never_reached_a_server_is_3(
    terminal: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    where = Server("ws://127.0.0.1:1/ws", KEY)
    with trio.fail_after(LIMIT_S):
        status = await top.watch(where, 1, False, Output(lambda: None), Interrupts())
    assert status == 3
    assert "is the server running?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0s"), (59, "59s"), (60, "1m00"), (3599, "59m59"), (3600, "1h00"), (600_000, "166h40")],
)
def test_an_age_is_short(seconds: float, shown: str) -> None:
    assert top._duration(seconds) == shown


async def test_help_answers_the_questions() -> None:
    result = await run("--help")
    assert result.exit_code == 0
    for answer in ("VOXTRAL_API_KEY", "Exit status", "Examples", "LAG", "ws://127.0.0.1:8000/ws"):
        assert answer in result.stdout
