"""The roster: which admitted connections there are, and what can be seen of each.

A seat is taken and left together with the connection token, in the same step, so their numbers are
equal whenever another task looks. The tree comes a moment later, when the client was answered. A
tree that leaves channel ends open behind it is counted here, because here is where it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from voxtral_actors.connection.tree import Tree
from voxtral_actors.server.wire import Wire


@attrs.define(eq=False)
class Seat:
    """One admitted connection."""

    session_id: str
    """The server's own name of it, which stands in the log."""
    wire: Wire
    tree: Tree | None = None

    def show(self, tree: Tree) -> None:
        self.tree = tree


class Roster:
    """The seats of one server, in the order in which they were taken."""

    def __init__(self) -> None:
        self.leaked_ends = 0
        """Channel ends that connections left open at their end."""
        self._seats: dict[Seat, None] = {}

    @contextmanager
    def seat(self, session_id: str, wire: Wire) -> Iterator[Seat]:
        seat = Seat(session_id, wire)
        self._seats[seat] = None
        try:
            yield seat
        finally:
            del self._seats[seat]
            if seat.tree is not None:
                self.leaked_ends += seat.tree.open_ends()

    def seats(self) -> list[Seat]:
        return list(self._seats)

    def __len__(self) -> int:
        return len(self._seats)
