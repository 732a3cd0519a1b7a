"""When something last happened on a connection: what the idle timer looks at."""

from __future__ import annotations

import trio


class Activity:
    """The time of the last client message or transcription event, on trio's clock."""

    def __init__(self) -> None:
        self.last = trio.current_time()

    def touch(self) -> None:
        self.last = trio.current_time()
