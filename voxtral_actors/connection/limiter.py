"""The limiter: lets messages through at the rate that the settings allow.

A message over its limit goes on as a `BadMessage`, so that its error keeps its place in the order
and counts like every other message that could not be acted on. `ping` and `end` are never limited,
`cancel` has a window of its own, and an append with enough audio in it is free: that is bounded by
the backlog and by TCP. Such audio is nearly all that comes, so it does not wait for this actor's
turn where nothing else does: the reader hands it past (`pass_by`), which saves a turn of a task.
"""

from __future__ import annotations

import math

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
        """When it last took a message; what passes by it does not count."""
        self._messages = Window(settings.max_messages_per_window, settings.message_window_s)
        self._cancels = Window(settings.max_cancels_per_window, settings.cancel_window_s)
        self._admitted: trio.MemorySendChannel[Inbound] | None = None
        self._ahead = 0
        """Messages that `pass_by` left to `inbound` and that are not through yet."""

    async def run(
        self,
        inbound: trio.MemoryReceiveChannel[Inbound],
        admitted: trio.MemorySendChannel[Inbound],
    ) -> None:
        """Pass messages on until `inbound` ends."""
        self._admitted = admitted
        with inbound, admitted:
            async for message in inbound:
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
                await pass_on(admitted, refusal or message)
                self._ahead -= 1

    def pass_by(self, message: Inbound) -> bool:
        """Called by the reader with each message: pass on audio that is free at once, unless it
        would overtake something or find no room. What is not passed on goes into `inbound`."""
        if self._admitted is not None and not self._ahead and _is_free(message):
            try:
                self._admitted.send_nowait(message)
                return True
            except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # `run` waits for room, and knows what a closed end means
        self._ahead += 1
        return False

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
