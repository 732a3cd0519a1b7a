"""The limiter: lets messages through at the rate that the settings allow.

A message over its limit goes on as a `BadMessage`, so that its error keeps its place in the order
and counts like every other message that could not be acted on. `ping` and `end` are never limited,
`cancel` has a window of its own, and an append with enough audio in it is free: that is bounded by
the backlog and by TCP. Such audio is nearly all that comes, so it does not wait for this actor's
turn where nothing else does: the reader hands it past (`pass_by`), which saves a turn of a task.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import attrs
import trio

from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.wiring import pass_on
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

Lane: TypeAlias = tuple[trio.MemoryReceiveChannel[Inbound], trio.MemorySendChannel[Inbound]]

_FREE_SAMPLES = SAMPLE_RATE * FREE_APPEND_MS // 1000


@attrs.frozen
class WindowStatistics:
    """How much of a window is taken; a limit of 0 is none."""

    used: int
    limit: int
    seconds: float


class Limiter:
    """The actor and its two windows; one `run` per object."""

    def __init__(self, settings: Settings) -> None:
        self.moved = Activity()
        """When it last took a message."""
        self._messages = Window(settings.max_messages_per_window, settings.message_window_s)
        self._cancels = Window(settings.max_cancels_per_window, settings.cancel_window_s)
        self._lane: Lane | None = None

    async def run(
        self,
        inbound: trio.MemoryReceiveChannel[Inbound],
        admitted: trio.MemorySendChannel[Inbound],
    ) -> None:
        """Pass messages on until `inbound` ends."""
        self._lane = inbound, admitted
        with inbound, admitted:
            async for message in inbound:
                self.moved.touch()
                match message:
                    case Ping() | End() | TooBig():
                        refusal = None
                    case Append() if message.samples >= _FREE_SAMPLES:
                        refusal = None
                    case Cancel():
                        refusal = _admit(self._cancels, "cancel", message)
                    case _:
                        refusal = _admit(self._messages, "message", message)
                await pass_on(admitted, refusal or message)

    def pass_by(self, message: Inbound) -> bool:
        """Called by the reader: pass on audio that is free at once, unless it would overtake
        something or find no room."""
        if self._lane is None or not isinstance(message, Append):
            return False
        inbound, admitted = self._lane
        if message.samples < _FREE_SAMPLES or not inbound.statistics().tasks_waiting_receive:
            return False
        try:
            admitted.send_nowait(message)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            return False  # `run` waits for room, and knows what a closed end means
        self.moved.touch()
        return True

    def statistics(self) -> dict[str, WindowStatistics]:
        """Each window by what it counts."""
        now = trio.current_time()
        windows = {"messages": self._messages, "cancels": self._cancels}
        return {
            name: WindowStatistics(window.used(now), window.limit, window.seconds)
            for name, window in windows.items()
        }


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
