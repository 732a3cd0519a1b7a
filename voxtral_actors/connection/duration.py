"""The duration timer: closes a connection that reached its age, after its last text."""

from __future__ import annotations

import trio

from voxtral_actors.connection.bridge import Bridge
from voxtral_actors.protocol.closing import Close


async def run(bridge: Bridge, max_duration: float, grace: float) -> None:
    """Wait for the age, finalise what is active, close. A duration of 0 never fires."""
    if not max_duration:
        return
    await trio.sleep(max_duration)
    await bridge.wind_down(Close.MAX_DURATION, grace)
