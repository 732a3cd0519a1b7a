"""What a long fetch does besides: it reports, waits a bounded time, and stops when told to.

Everything here runs in the thread of the fetch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

import attrs

from voxtral_actors import limits
from voxtral_actors.engine.modelfolder import SnapshotError

Doing: TypeAlias = Literal["checking", "listing", "downloading", "waiting", "retrying"]

_POLL_S = 0.1


class FetchCancelled(Exception):
    """The fetch was told to stop."""


@attrs.frozen
class Patience:
    """How long to wait for what, in seconds."""

    timeout_s: float = limits.HUB_TIMEOUT_S
    attempts: int = limits.HUB_ATTEMPTS
    first_pause_s: float = limits.HUB_BACKOFF_FIRST_S
    max_pause_s: float = limits.HUB_BACKOFF_MAX_S
    lock_s: float = limits.SNAPSHOT_LOCK_S


@attrs.frozen
class Progress:
    """What the fetch does now. Bytes are of all files together; `total` 0: not known."""

    doing: Doing
    file: str
    done: int
    total: int
    note: str = ""
    """Why it waits or tries again: one line."""


class Watch:
    """Reports and waits for one fetch; every call raises `FetchCancelled` once it is cancelled."""

    def __init__(
        self,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
        patience: Patience,
        lock: Path,
    ) -> None:
        self.patience = patience
        self._file = ""
        self.holds_lock = False
        self._progress = progress
        self._cancelled = cancelled
        self._lock = lock
        self._doing: Doing = "checking"
        self._done = self._total = 0
        self._next_report = 0.0
        self._holder_seen: tuple[int, float] | None = None

    def begin(self, doing: Doing, total: int = 0) -> None:
        self._doing, self._done, self._total = doing, 0, total
        self.begin_file("")

    def begin_file(self, name: str) -> None:
        self._file = name
        self._next_report = 0.0
        self.advance(0)

    def advance(self, count: int) -> None:
        """So many bytes more; fewer, if some are of no use."""
        self._done += count
        self._check()
        if (now := time.monotonic()) >= self._next_report:
            self._next_report = now + limits.HUB_REPORT_S
            self._sign_of_life()
            self._progress(Progress(self._doing, self._file, self._done, self._total))

    def pause(self, fault: SnapshotError, asked_s: float | None, failures: int) -> None:
        """Wait before another attempt, or raise the fault if there shall be none."""
        most = self.patience.max_pause_s
        if asked_s is None or asked_s > most or failures >= self.patience.attempts:
            raise fault
        pause = max(asked_s, min(most, self.patience.first_pause_s * 2 ** (failures - 1)))
        note = f"{fault} Next attempt in {pause:.3g} s."
        self._progress(Progress("retrying", self._file, self._done, self._total, note))
        end = time.monotonic() + pause
        while (left := end - time.monotonic()) > 0:
            self._sleep(left)
            self._sign_of_life()

    def wait_for_lock(self) -> None:
        """While another process fetches: until it is done, or shows no sign of life."""
        sign = self._lock.stat().st_mtime_ns
        now = time.monotonic()
        if self._holder_seen is None or self._holder_seen[0] != sign:
            self._holder_seen = sign, now
        elif now - self._holder_seen[1] > self.patience.lock_s:
            stuck = f"another process holds {self._lock} and has done nothing for"
            raise SnapshotError("busy", f"{stuck} {self.patience.lock_s:g} s: end that one first.")
        if now >= self._next_report or self._doing != "waiting":
            self._doing, self._next_report = "waiting", now + limits.HUB_REPORT_S
            note = f"Another process fetches into {self._lock.parent}."
            self._progress(Progress("waiting", "", 0, 0, note))
        self._sleep(_POLL_S)

    def _sign_of_life(self) -> None:
        if self.holds_lock:
            with suppress(OSError):  # the next thing that is written says it better
                os.utime(self._lock)

    def _sleep(self, seconds: float) -> None:
        self._check()
        time.sleep(min(seconds, _POLL_S))

    def _check(self) -> None:
        if self._cancelled():
            raise FetchCancelled
