"""What becomes of utterances, counted over all connections: one object for the server."""

from __future__ import annotations

from collections import Counter

import attrs


@attrs.define
class UtteranceFigures:
    """Counts that only grow, but for `waiting`."""

    waiting: int = 0
    """Utterances that have lost their stream, or never had one, and wait for the engine."""
    waits: int = 0
    replays: int = 0
    """Streams that were opened to hear audio again."""
    replayed_s: float = 0.0
    given_up: Counter[str] = attrs.field(factory=Counter)
    """Why an utterance was not heard again: `budget`, `vain` (lost again and again) or `gap`."""
