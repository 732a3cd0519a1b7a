"""What the command line shows while audio is sent: text on stdout, everything else on stderr.

`PlainView` is for pipes: the text alone goes to stdout, as it comes. `JsonView` writes one object a
file. `TerminalView` draws the newest lines of the text and a progress bar, and leaves the whole
text behind when the file is done. A reader of stdout that goes away (`| head`), or a disk that is
full, stops the run by calling `on_broken_pipe`.
"""

from __future__ import annotations

import os
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import attrs
import click
import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from voxtral_actors.protocol.events import Cancelled, Error, SessionCreated, Usage

_SHOWN_LINES = 6
_REFRESH_S = 0.1


@attrs.frozen
class Transcript:
    """What became of one file. With an `error`, `text` is what was final until then."""

    file: str
    text: str = ""
    audio_seconds: float = 0.0
    first_latency_s: float | None = None
    """From the first audio sent to the first text."""
    final_latency_s: float | None = None
    """From the last audio sent to the end of the text."""
    usage: Usage | None = None
    error: str | None = None


class View(Protocol):
    """How a run is shown."""

    def note(self, text: str) -> None: ...
    def begin(self, name: str, seconds: float) -> None: ...
    def sent(self, seconds: float) -> None: ...
    def delta(self, text: str) -> None: ...
    def end(self, transcript: Transcript) -> None: ...
    def unreachable(self, names: list[str], reason: str) -> None:
        """There is no connection for these files."""

    def close(self) -> None:
        """The run is over, or was interrupted in the middle of a file."""


def choose_view(*, as_json: bool, quiet: bool, on_broken_pipe: Callable[[], object]) -> View:
    out = Output(on_broken_pipe, quiet=quiet)
    if as_json:
        return JsonView(out)
    if not quiet and sys.stdout.isatty() and sys.stderr.isatty():
        return TerminalView(out)
    return PlainView(out)


def describe_session(created: SessionCreated) -> str:
    note = f" ({created.note})" if created.note else ""
    return f"connected: model {created.model}, engine {created.engine}{note}"


def describe_failure(ending: Error | Cancelled) -> str:
    """Why an utterance has no final text."""
    match ending:
        case Error(code=code, reason_code=reason, message=message):
            return f"{code} ({reason}): {message}"
        case Cancelled(reason=reason):
            return f"cancelled by the server ({reason})"


def describe_transcript(transcript: Transcript) -> str:
    if transcript.error is not None:
        return f"{transcript.file}: failed: {transcript.error}"
    said = f"{transcript.file}: {transcript.audio_seconds:.1f} s of audio"
    if transcript.first_latency_s is not None:
        said += f", first text after {transcript.first_latency_s:.2f} s"
    if transcript.final_latency_s is not None:
        said += f", all of it {transcript.final_latency_s:.2f} s after the last audio"
    return said


class Output:
    """stdout for the text, stderr for everything else."""

    def __init__(self, on_broken_pipe: Callable[[], object], *, quiet: bool = False) -> None:
        self._on_broken_pipe = on_broken_pipe
        self._quiet = quiet
        self._tty = sys.stdout.isatty()

    def write(self, text: str) -> None:
        try:
            click.echo(printable(text) if self._tty else text, nl=False)
        except OSError as error:
            # The interpreter must not trip over it again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(error, BrokenPipeError):  # else nobody reads any more: as in `| head`
                self.complain(f"stdout cannot be written: {error.strerror}")
            self._on_broken_pipe()

    def note(self, text: str) -> None:
        if not self._quiet:
            self.complain(text)

    def complain(self, text: str) -> None:
        click.echo(printable(text), err=True)


class PlainView:
    def __init__(self, out: Output) -> None:
        self._out = out
        self._written = False

    def note(self, text: str) -> None:
        self._out.note(text)

    def begin(self, name: str, seconds: float) -> None:
        self._written = False

    def sent(self, seconds: float) -> None:
        pass

    def delta(self, text: str) -> None:
        self._written = True
        self._out.write(text)

    def end(self, transcript: Transcript) -> None:
        if self._written or transcript.error is None:
            self._out.write("\n")
            self._written = False
        tell = self._out.note if transcript.error is None else self._out.complain
        tell(describe_transcript(transcript))

    def unreachable(self, names: list[str], reason: str) -> None:
        self._out.complain(reason)

    def close(self) -> None:
        if self._written:
            self._out.write("\n")


class JsonView:
    def __init__(self, out: Output) -> None:
        self._out = out

    def note(self, text: str) -> None:
        self._out.note(text)

    def begin(self, name: str, seconds: float) -> None:
        pass

    def sent(self, seconds: float) -> None:
        pass

    def delta(self, text: str) -> None:
        pass

    def end(self, transcript: Transcript) -> None:
        self._out.write(msgspec.json.encode(attrs.asdict(transcript)).decode() + "\n")

    def unreachable(self, names: list[str], reason: str) -> None:
        self._out.complain(reason)
        for name in names:
            self.end(Transcript(name, error=reason))

    def close(self) -> None:
        pass


class TerminalView:
    def __init__(self, out: Output, console: Console | None = None) -> None:
        self._out = out
        self._console = console or Console(stderr=True)
        self._live: Live | None = None
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._text = ""
        self._drawn_at = 0.0

    def note(self, text: str) -> None:
        self._console.print(Text(printable(text), style="dim"), soft_wrap=True)

    def begin(self, name: str, seconds: float) -> None:
        self._text = ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[at]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task(printable(Path(name).name), total=seconds, at="")
        # Drawn from here and not from a thread of rich's, which would race with the last words.
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()
        self._draw()

    def sent(self, seconds: float) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=seconds, at=f"{seconds:.1f} s")
        self._draw_sometimes()

    def delta(self, text: str) -> None:
        self._text += text
        self._draw_sometimes()

    def end(self, transcript: Transcript) -> None:
        self._text = transcript.text or self._text
        self.close()
        style = "dim" if transcript.error is None else "red"
        said = Text(printable(describe_transcript(transcript)), style=style)
        self._console.print(said, soft_wrap=True)

    def unreachable(self, names: list[str], reason: str) -> None:
        self._out.complain(reason)

    def close(self) -> None:
        if self._live is not None:
            self._live.update(Text(), refresh=True)
            self._live.stop()
            self._live = None
        if self._text:
            self._out.write(self._text + "\n")
            self._text = ""

    def _draw_sometimes(self) -> None:
        if time.monotonic() - self._drawn_at >= _REFRESH_S:
            self._draw()

    def _draw(self) -> None:
        if self._live is None or self._progress is None:
            return
        self._drawn_at = time.monotonic()
        tail = printable(self._text[-_SHOWN_LINES * self._console.width :])
        lines = Text(tail).wrap(self._console, self._console.width)[-_SHOWN_LINES:] if tail else ()
        self._live.update(Group(*lines, self._progress), refresh=True)


def printable(text: str) -> str:
    """Without control characters: a transcript must not be able to steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
