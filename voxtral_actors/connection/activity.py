"""When something last happened: what the idle timer and the search for stuck actors look at."""

from __future__ import annotations

import trio


class Activity:
    """The time of the last `touch`, on trio's clock. For the idle timer that is the last message of
    the client or transcription event."""

    def __init__(self) -> None:
        self._clock = trio.lowlevel.current_clock()  # what `trio.current_time` looks for each time
        self.last = self._clock.current_time()

    def touch(self) -> None:
        self.last = self._clock.current_time()
