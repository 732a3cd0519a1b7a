"""How an orchestrator asks for a drain without a deadline: a signal, and the command that sends it.

SIGTERM means VOXTRAL_DRAIN_TIMEOUT_S and not a second more. The signal here means: take nobody in,
and end when the last utterance has. It is no route of the HTTP server, for there whoever has a
client's key could stop it.

A process that has no handler for the signal would be killed by it. So on Linux, where the kernel
tells, it is sent to none of those: not to a server that has only just been started, and not to a
process that is something else.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

from voxtral_actors.limits import DRAIN_LOOK_S

SIGNAL: Final = signal.SIGUSR2


class NotDrainedError(Exception):
    """The server was not told, or is still there; the message says which."""


def drain(pid: int, within_s: float | None) -> None:
    """Tell the server to drain, and return when it has ended.

    Raises:
        NotDrainedError: there is no such server, or it is still there after `within_s`.
    """
    if not _survives(pid):
        raise NotDrainedError(f"process {pid} is no server, or one that is only starting")
    try:
        os.kill(pid, SIGNAL)
    except ProcessLookupError:
        raise NotDrainedError(f"there is no process {pid}") from None
    except PermissionError:
        raise NotDrainedError(f"process {pid} is another user's: ask as that user") from None
    give_up_at = None if within_s is None else time.monotonic() + within_s
    while _alive(pid):
        if give_up_at is not None and time.monotonic() >= give_up_at:
            raise NotDrainedError(f"utterances still run after {within_s:g} s: the server goes on")
        time.sleep(DRAIN_LOOK_S)  # there is nothing to wait on that every system has


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # or somebody else's by now
        return False
    return True


def _survives(pid: int) -> bool:
    """Whether the process handles the signal; the first one of a container cannot be killed by it,
    and passes it on."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:  # no such process, or no such file system: the signal itself will tell
        return True
    rows = (line.split() for line in text.splitlines())
    handled = next((int(row[1], 16) for row in rows if row[:1] == ["SigCgt:"]), 0)
    return pid == 1 or bool(handled >> (SIGNAL - 1) & 1)
