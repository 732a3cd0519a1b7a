"""The command line: what `voxtral-actors` does, and the only reader of this process's environment.

Exit status: 0 done, 1 failed, 2 the command line or the settings are wrong.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from dotenv.parser import parse_stream

import voxtral_actors
from voxtral_actors import logs
from voxtral_actors.lazy import LazyGroup, Target, names_missing
from voxtral_actors.settings import Settings, SettingsError, describe, load

WRONG_SETTINGS = 2

_Command = TypeVar("_Command", bound=Callable[..., Any])

_env_file: Callable[[_Command], _Command] = click.option(
    "--env-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Read settings from KEY=VALUE lines too. A variable of the environment wins.",
)


@click.group(
    cls=LazyGroup,
    lazy={
        "transcribe": Target(
            "voxtral_actors.client.cli:transcribe", "client", "Send audio files, print the text."
        ),
        "listen": Target(
            "voxtral_actors.client.cli:listen", "mic", "Send the microphone, print the text."
        ),
        "top": Target("voxtral_actors.client.cli:top", "client", "Watch a server's sessions."),
        "plan": Target(
            "voxtral_actors.planning.cli:main", "client", "Say how many sessions fit on a GPU."
        ),
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(voxtral_actors.__version__, prog_name="voxtral-actors")
def main() -> None:
    """Live speech-to-text over WebSocket.

    \b
    See it work:      voxtral-actors demo
    Run a server:     voxtral-actors serve --help
    Get the model:    voxtral-actors fetch --help
    Use a server:     voxtral-actors transcribe --help
    Choose a machine: voxtral-actors plan --help
    Watch a server:   voxtral-actors top --help
    """


@main.command()
@_env_file
@click.pass_context
def serve(context: click.Context, env_file: Path | None) -> None:
    """Run the server until SIGTERM or Ctrl-C.

    \b
    Two settings have no default:
      VOXTRAL_API_KEY              keys that clients may use, separated by commas
      MAX_CONCURRENT_CONNECTIONS   connections open at once

    \b
    Example:
      export VOXTRAL_API_KEY=$(openssl rand -hex 32)
      MAX_CONCURRENT_CONNECTIONS=100 voxtral-actors serve

    \b
    Or with all settings in a file (config/.env.example lists them):
      voxtral-actors serve --env-file .env

    Then ws://127.0.0.1:8000/ws takes clients, /readyz says whether the engine is ready and /metrics
    has the numbers. `voxtral-actors check-config` shows every setting. With wrong settings it
    prints all the faults and exits with 2.

    On SIGTERM it takes no new clients, lets utterances finish for VOXTRAL_DRAIN_TIMEOUT_S at most,
    and exits with 0. A second signal ends it at once; then it exits with 130 (Ctrl-C) or 143.
    `voxtral-actors drain` gives utterances all the time they need.
    """
    settings = _settings(env_file)
    logs.configure(settings.log_level, settings.log_format, settings.secrets)
    from voxtral_actors.server import app

    context.exit(app.main(settings))


@main.command()
@click.option("--pid", type=click.IntRange(min=1), required=True, help="The server's process.")
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait for so long at most; the drain goes on.  [default: until the server has ended]",
)
def drain(pid: int, within_s: float | None) -> None:
    """Let a server on this machine finish its utterances and end, without a deadline.

    It is not ready any more at once and takes no new clients; sessions are closed as their
    utterances finish, however long those are, and then it exits with 0. SIGTERM sets a deadline
    to that, as always. This command sends SIGUSR2, and waits until the server has ended.

    \b
    Examples:
      voxtral-actors drain --pid 1                   in the server's container
      voxtral-actors drain --pid 1 --within 600      before an orchestrator sends SIGTERM

    Exits with 0 if the server has ended, 1 if it was not told or still runs, 2 if the command line
    is wrong.
    """
    from voxtral_actors.server import draining

    try:
        draining.drain(pid, within_s)
    except draining.NotDrainedError as error:
        raise click.ClickException(str(error)) from None


@main.command("check-config")
@_env_file
@click.option("--explain", is_flag=True, help="Say what each setting does.")
def check_config(env_file: Path | None, *, explain: bool) -> None:
    """Print the effective settings, or every fault in them.

    Reads what `serve` would read, starts nothing, and masks secrets. Exits with 0, or with 2 if
    `serve` would refuse to start.

    \b
    Examples:
      voxtral-actors check-config --env-file .env
      VOXTRAL_API_KEY=any MAX_CONCURRENT_CONNECTIONS=1 voxtral-actors check-config --explain
    """
    rows = describe(_settings(env_file))
    width = max(len(name) for name, _, _ in rows)
    for name, value, meaning in rows:
        click.echo(f"{name:{width}}  {value or '(unset)'}")
        if explain:
            click.secho(f"{'':{width}}  {meaning}", dim=True)


@main.command()
@_env_file
@click.option("--verify", is_flag=True, help="Hash every file, even if none looks touched.")
@click.option("--local", is_flag=True, help="Take the files of the folder as they are: see above.")
@click.pass_context
def fetch(context: click.Context, env_file: Path | None, *, verify: bool, local: bool) -> None:
    """Get the model's files into VOXTRAL_MODEL_DIR, as `serve` does when it starts.

    Loads only the files that the VLLM_…_FORMAT settings need, goes on where an earlier run stopped,
    and checks sizes and hashes. When all is there it needs no network. Uses HF_TOKEN if it is set.
    The settings that only a server needs may be missing.

    With --local it loads nothing and takes what is in the folder for VOXTRAL_MODEL_ID: for a
    model of your own, or one that you copied there by hand.

    \b
    Examples:
      voxtral-actors fetch --env-file .env
      VOXTRAL_MODEL_DIR=/srv/voxtral voxtral-actors fetch --verify

    Prints the folder. Exits with 0 if it is complete, 1 if the files cannot be had, 2 if the
    settings are wrong.
    """
    settings = _settings(env_file, serving=False)
    with names_missing("vllm"):
        from voxtral_actors.engine import fetch_cli

    context.exit(fetch_cli.main(settings, full=verify, local=local))


@main.command()
@click.option("--once", is_flag=True, help="Exit after the transcript: 0 if it is right, else 1.")
@click.pass_context
def demo(context: click.Context, *, once: bool) -> None:
    """Start a server here, stream a speech sample through it and print the words as they come.

    Needs no settings, no GPU and no network. The server listens on the loopback with a random
    key and the embedded English recogniser, and stays up until Ctrl-C for you to connect to.

    \b
    Example:
      voxtral-actors demo --once
    """
    with names_missing("client,sphinx"):
        from voxtral_actors.demo import run

    context.exit(run.main(once))


def _settings(env_file: Path | None, *, serving: bool = True) -> Settings:
    """The settings, or the end of the process with all their faults on stderr."""
    variables: Mapping[str, str] = os.environ
    problems: list[str] = []
    if env_file is not None:
        from_file, problems = _read_env_file(env_file)
        variables = {**from_file, **os.environ}
    try:
        settings = load(variables, serving=serving)
    except SettingsError as error:
        problems += error.problems
    else:
        if not problems:
            return settings
    one = len(problems) == 1
    click.echo(f"{'A setting is' if one else f'{len(problems)} settings are'} wrong:", err=True)
    for problem in problems:
        click.echo(f"  {problem}", err=True)
    sys.exit(WRONG_SETTINGS)


def _read_env_file(path: Path) -> tuple[dict[str, str], list[str]]:
    """The variables of a file, and its lines that are none. Lines may hold secrets: not shown."""
    values: dict[str, str] = {}
    problems: list[str] = []
    try:
        with path.open(encoding="utf-8") as file:
            bindings = list(parse_stream(file))
    except (OSError, UnicodeDecodeError) as error:
        return {}, [f"{path} cannot be read as text: {getattr(error, 'strerror', error)}."]
    for binding in bindings:
        if binding.error or (binding.key is not None and binding.value is None):
            problems.append(f"{path}, line {binding.original.line} is not KEY=VALUE.")
        elif binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value
    return values, problems
