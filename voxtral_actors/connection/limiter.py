"""The limiter: lets messages through at the rate that the settings allow.

A message over its limit goes on as a `BadMessage`, so that its error keeps its place in the order
and counts like every other message that could not be acted on. `ping` and `end` are never limited,
`cancel` has a window of its own, and an append with enough audio in it is free: that is bounded by
the backlog and by TCP. Such audio is nearly all that comes, and may pass by this actor (see
`wiring`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import trio

from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.wiring import Wiring
from voxtral_actors.limits import FREE_APPEND_MS, SAMPLE_RATE
from voxtral_actors.protocol.commands import (
    Append,
    BadMessage,
    Cancel,
    End,
    Inbound,
    Ping,
    Start,
    TooBig,
)
from voxtral_actors.protocol.rate import Window
from voxtral_actors.settings import Settings

_FREE_SAMPLES = SAMPLE_RATE * FREE_APPEND_MS // 1000


@attrs.frozen
class WindowStatistics:
    """How much of a window is taken; a limit of 0 is none."""

    used: int
    limit: int
    seconds: float


class Limiter:
    """The actor and its two windows; one `run` per object. `pass_by` is that of the next actor."""

    def __init__(
        self,
        settings: Settings,
        wires: Wiring,
        pass_by: Callable[[Inbound], bool],
    ) -> None:
        self.moved = Activity()
        """When it last took a message; what passes by it does not count."""
        self._messages = Window(settings.max_messages_per_window, settings.message_window_s)
        self._cancels = Window(settings.max_cancels_per_window, settings.cancel_window_s)
        self._inbound = wires.inbound
        self._admitted = wires.admitted
        self._pass_by = pass_by

    async def run(self) -> None:
        """Pass messages on until `inbound` ends."""
        with self._inbound.receive, self._admitted.send:
            while True:
                try:
                    message = await self._inbound.take()
                except trio.EndOfChannel:
                    return
                self.moved.touch()
                match message:
                    case Ping() | End() | TooBig():
                        refusal = None
                    case _ if _is_free(message):
                        refusal = None
                    case Cancel():
                        refusal = _admit(self._cancels, "cancel", message)
                    case _:
                        refusal = _admit(self._messages, "message", message)
                await self._admitted.put(refusal or message)

    def pass_by(self, message: Inbound) -> bool:
        """The reader's: act on audio that is free, unless it would overtake something or finds no
        room. False: nothing was done, put it into `inbound`."""
        if not self._inbound.idle or not _is_free(message):
            return False
        return self._pass_by(message)

    def statistics(self) -> dict[str, WindowStatistics]:
        """Each window by what it counts."""
        now = trio.current_time()
        windows = {"messages": self._messages, "cancels": self._cancels}
        return {
            name: WindowStatistics(window.used(now), window.limit, window.seconds)
            for name, window in windows.items()
        }


def _is_free(message: Inbound) -> bool:
    return isinstance(message, Append) and message.samples >= _FREE_SAMPLES


def _admit(window: Window, kind: str, message: Inbound) -> BadMessage | None:
    """None if the window has room, else the error that the message earns."""
    wait = window.admit(trio.current_time())
    if wait is None:
        return None
    return BadMessage(
        "rate_limited",
        f"{kind}_rate_limited",
        f"more than {window.limit} {kind}s in {window.seconds:g} s; retry in {wait:.1f} s",
        {
            "retry_in": math.ceil(wait * 1000) / 1000,
            "limit": window.limit,
            "window_seconds": window.seconds,
            "kind": kind,
        },
        getattr(message, "session_id", None),
        getattr(message, "request_id", None),
        was_start=isinstance(message, Start),
    )
