"""The idle watchdog: closes a connection on which neither side says anything."""

from __future__ import annotations

import trio

from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.bridge import Bridge
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.signals import Closing


async def run(bridge: Bridge, activity: Activity, timeout: float) -> None:
    """Wait for `timeout` seconds of silence, then close. A timeout of 0 never fires."""
    if not timeout:
        return
    while trio.current_time() < (due := activity.last + timeout):  # noqa: ASYNC110 - it moves
        await trio.sleep_until(due)
    await bridge.tell(Closing(Close.IDLE))
