"""The client's commands: `transcribe`, `listen` and `top`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import click
import trio

from voxtral_actors.client.listening import listen_until_interrupted
from voxtral_actors.client.running import (
    FAILED,
    INTERRUPTED,
    Interrupts,
    Server,
    run_until_interrupted,
)
from voxtral_actors.client.showing import Output, choose_view
from voxtral_actors.client.stream import Address
from voxtral_actors.client.top import watch
from voxtral_actors.client.transcribing import How, transcribe_files

F = TypeVar("F", bound=Callable[..., Any])

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _url(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        Address.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def _first_key(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    key = (value or "").partition(",")[0].strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise click.BadParameter("a key has characters that no HTTP header may carry")
    return key or None


def _which_server(command: F) -> F:
    return _options(
        command,
        click.option(
            "--url",
            envvar="VOXTRAL_URL",
            show_envvar=True,
            default="ws://127.0.0.1:8000/ws",
            show_default=True,
            callback=_url,
            metavar="URL",
            help="The server's WebSocket; wss:// for TLS.",
        ),
        click.option(
            "--api-key",
            envvar="VOXTRAL_API_KEY",
            show_envvar=True,
            callback=_first_key,
            metavar="KEY",
            help="One of the server's keys. Prefer the variable: other users of this machine can"
            " read a command line. Of a list with commas, the first key is used.",
        ),
    )


def _server_options(command: F) -> F:
    command = _options(
        command,
        click.option(
            "--wait",
            "wait_s",
            type=click.FloatRange(min=0),
            default=0,
            metavar="SECONDS",
            help="How long to keep trying while nobody listens or the server says to come back (it"
            " starts, restarts or is full), at first and whenever the connection is lost; a file"
            " then goes on where it was.  [default: 0]",
        ),
        click.option(
            "--chunk-ms",
            type=click.IntRange(20, 1000),
            default=80,
            show_default=True,
            help="How much audio a message carries. Voxtral works in steps of 80 ms.",
        ),
    )
    return _which_server(command)


def _options(command: F, *options: Callable[[F], F]) -> F:
    """Add options to a command, to be listed in this order."""
    for option in reversed(options):
        command = option(command)
    return command


@click.command(context_settings=_HELP)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@_server_options
@click.option(
    "--live/--fast",
    default=True,
    help="Send at the pace of speech, as a microphone would, or as fast as the server takes it."
    "  [default: live]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a file instead.")
@click.option("-q", "--quiet", is_flag=True, help="On stderr, print errors only.")
@click.pass_context
def transcribe(
    context: click.Context,
    *,
    files: tuple[str, ...],
    url: str,
    api_key: str | None,
    wait_s: float,
    chunk_ms: int,
    live: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Send audio files to a server and print their text as it comes.

    FILE is anything libsndfile reads (WAV, FLAC, MP3, Ogg, AIFF and more; any rate, any number of
    channels), or .pcm and .raw: 16-bit little endian at 16 kHz, one channel. Several files go over
    one connection, one after the other.

    On a terminal the newest words and a progress bar are shown. In a pipe, stdout is the text
    alone, a line a file; all else goes to stderr.

    \b
    With --json, each line of stdout is
      {"file", "text", "audio_seconds", "first_latency_s", "final_latency_s", "usage", "error"}
    first_latency_s: from the first audio sent to the first text.
    final_latency_s: from the last audio sent to the end of the text.
    error: null, or why the file failed; text is then what was final until there.

    \b
    Exit status:
      0  every file was transcribed        3    cannot connect
      1  a file failed                     130  Ctrl-C
      2  the command line is wrong

    \b
    Examples:
      export VOXTRAL_API_KEY=...                       the server's key
      voxtral-actors transcribe talk.mp3               at live pace, words as they come
      voxtral-actors transcribe --fast *.wav > all.txt
      voxtral-actors transcribe --fast --json a.flac | jq .final_latency_s
    """
    server = Server(url, api_key, wait_s)
    how = How(live=live, chunk_ms=chunk_ms)

    async def command(interrupts: Interrupts) -> int:
        view = choose_view(
            as_json=as_json, quiet=quiet, on_broken_pipe=partial(interrupts.stop, FAILED)
        )
        try:
            return await transcribe_files(list(files), server, how, view)
        finally:
            view.close()

    _run(context, command)


@click.command(context_settings=_HELP)
@_server_options
@click.option(
    "--device",
    metavar="NAME|NUMBER",
    help="The microphone, by a part of its name or by number (python -m sounddevice lists them)."
    "  [default: the system's]",
)
@click.option("-q", "--quiet", is_flag=True, help="On stderr, print errors only.")
@click.pass_context
def listen(
    context: click.Context,
    *,
    url: str,
    api_key: str | None,
    wait_s: float,
    chunk_ms: int,
    device: str | None,
    quiet: bool,
) -> None:
    """Send the microphone to a server and print the text as you speak.

    Ctrl-C ends it: the microphone stops and the last words are printed. A second Ctrl-C does not
    wait for them. stdout is the text alone; all else goes to stderr.

    \b
    It needs the microphone library:
      pip install 'voxtral-actors[mic]'
      sudo apt-get install libportaudio2      # Debian, Ubuntu

    \b
    Exit status:
      0  ended with Ctrl-C                      3    cannot connect
      1  the server ended it                    130  a second Ctrl-C
      2  the command line is wrong, or there is no microphone

    \b
    Examples:
      export VOXTRAL_API_KEY=...                       the server's key
      voxtral-actors listen
      voxtral-actors listen --url wss://speech.example.org/ws | tee notes.txt
    """
    server = Server(url, api_key, wait_s)
    which = int(device) if device is not None and device.isdecimal() else device

    async def command(interrupts: Interrupts) -> int:
        out = Output(partial(interrupts.stop, FAILED), quiet=quiet)
        return await listen_until_interrupted(server, which, chunk_ms, out, interrupts)

    _run(context, command)


@click.command(context_settings=_HELP)
@_which_server
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two pictures.",
)
@click.option("--once", is_flag=True, help="Print one picture as plain text and end.")
@click.pass_context
def top(
    context: click.Context, *, url: str, api_key: str | None, interval_s: float, once: bool
) -> None:
    """Watch a server: its engine, and its sessions with the one in most trouble first.

    Asks /debug/actors beside the server's WebSocket until Ctrl-C. Where stdout is no terminal, it
    prints once, 80 columns wide.

    \b
    LAG      audio of the session that waits for the engine
    QUEUES   messages between its actors: inbound/admitted/outbound
    loop     how long a task that is ready waits for its turn

    \b
    Exit status:
      0  ended with Ctrl-C, or printed once     3    cannot connect, or the key is wrong
      2  the command line is wrong

    \b
    Examples:
      export VOXTRAL_API_KEY=...                       the server's key
      voxtral-actors top
      voxtral-actors top --once --url wss://speech.example.org/ws
    """
    server = Server(url, api_key)

    async def command(interrupts: Interrupts) -> int:
        out = Output(partial(interrupts.stop, FAILED))
        return await watch(server, interval_s, once, out, interrupts)

    _run(context, command)


def _run(context: click.Context, command: Callable[[Interrupts], Any]) -> None:
    try:
        status = trio.run(run_until_interrupted, command)
    except KeyboardInterrupt:  # before the first or after the last moment that trio is told of it
        status = INTERRUPTED
    context.exit(status)
