"""Admission over a rolling window, as a value.

A window of `limit` per `seconds` remembers when the last `limit` admissions were. One more is let
in when the oldest of them is `seconds` old; until then it is refused and told when to come back.
Refusals are not remembered: a client that keeps trying is let in as soon as one that waited.
Time is an argument, in seconds on any clock that does not go back.
"""

from __future__ import annotations

import attrs


@attrs.define
class Window:
    """At most `limit` admissions in any `seconds` seconds; a limit of 0 admits everything."""

    limit: int
    seconds: float
    # Every connection has some, most of them empty: a deque takes 0.7 KB even then, a list none.
    _admitted: list[float] = attrs.field(init=False, factory=list)

    def admit(self, now: float) -> float | None:
        """Take one admission at `now`: None if it is granted, else the seconds until one is."""
        if not self.limit:
            return None
        if len(self._admitted) == self.limit:
            wait = self._admitted[0] + self.seconds - now
            if wait > 0:
                return wait
            del self._admitted[0]
        self._admitted.append(now)
        return None

    def used(self, now: float) -> int:
        """How many admissions of the window that ends at `now` are taken."""
        return sum(1 for admitted in self._admitted if admitted > now - self.seconds)
