"""`voxtral-actors fetch`: the model's files, with one line on stderr that says how far it is.

On a terminal the line is written over; elsewhere a new one comes every few seconds, and whenever
something else is done.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from voxtral_actors.engine import modelfolder, snapshot
from voxtral_actors.engine.snapshot import Progress, SnapshotError
from voxtral_actors.limits import FETCH_LINE_S
from voxtral_actors.settings import Settings

_DOING = {
    "checking": "Checking",
    "listing": "Asking the hub for the list of files",
    "downloading": "Loading",
    "retrying": "Retrying",
    "waiting": "Waiting",
}


def main(settings: Settings, *, full: bool, local: bool) -> int:
    """Fetch, or with `local` adopt; the folder goes to stdout. Returns the exit status."""
    line = _Line()
    try:
        folder = modelfolder.adopt(settings) if local else _fetch(settings, line, full=full)
    except SnapshotError as error:
        line.end()
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        line.end()
        print("Stopped; the next run goes on from here.", file=sys.stderr)
        return 1
    line.end()
    print(folder)
    return 0


def _fetch(settings: Settings, line: _Line, *, full: bool) -> Path:
    return snapshot.fetch(settings, progress=line.show, full=full)


class _Line:
    """What is shown of the progress."""

    def __init__(self) -> None:
        self._over = sys.stderr.isatty()
        self._shown = ("", "")
        self._next = 0.0
        self._open = False

    def show(self, progress: Progress) -> None:
        now = time.monotonic()
        what = (progress.doing, progress.file)
        if not self._over and what == self._shown and now < self._next:
            return
        self._shown, self._next = what, now + FETCH_LINE_S
        text = describe(progress)
        if self._over:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\x1b[K{text[:width]}")
            self._open = True
        else:
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def end(self) -> None:
        if self._open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def describe(progress: Progress) -> str:
    """One line for a person."""
    if progress.note:
        return progress.note
    text = " ".join(filter(None, (_DOING[progress.doing], progress.file)))
    if progress.total:
        share = 100 * progress.done // progress.total
        return f"{text}: {share} % of {progress.total / 1e6:,.1f} MB"
    if progress.done:
        return f"{text}: {progress.done / 1e6:,.1f} MB"
    return text
