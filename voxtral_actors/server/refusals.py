"""What the log says of clients that were not let in: a line each, and no more than it can bear.

Anybody can be refused as often as they like, so lines are admitted through a window. What it keeps
back is counted, and the next line says how many that were; the exact counts are in `/metrics`.
"""

from __future__ import annotations

import structlog
import trio

from voxtral_actors.limits import REFUSAL_LINES, REFUSAL_LINES_S
from voxtral_actors.protocol.rate import Window

log = structlog.get_logger(__name__)


class Refusals:
    """The refused clients of one listener."""

    def __init__(self) -> None:
        self._window = Window(REFUSAL_LINES, REFUSAL_LINES_S)
        self._unreported = 0

    def tell(self, reason: str, peer: str) -> None:
        if self._window.admit(trio.current_time()) is not None:
            self._unreported += 1
            return
        log.info("client.refused", reason=reason, peer=peer, unreported=self._unreported)
        self._unreported = 0
