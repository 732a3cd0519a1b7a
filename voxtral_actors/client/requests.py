"""Requests that are waiting for an answer: `ping` and `session.update`.

A request waits until there is a connection, and belongs to it from then on: if that is lost before
the answer came, it is not known what became of the request, and who asked is told so.
"""

from __future__ import annotations

import attrs
import trio

from voxtral_actors.client.errors import ClientError
from voxtral_actors.protocol.events import Event


@attrs.define(eq=False)
class Request:
    """One request; `answered` is set once there is an answer, or none can come."""

    posted: bool = False
    answer: Event | ClientError | None = None
    answered: trio.Event = attrs.field(factory=trio.Event)


class Requests:
    """The requests of a session, by request id."""

    def __init__(self) -> None:
        self._waiting: dict[str, Request] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request_id: str) -> Request:
        return self._waiting.setdefault(request_id, Request())

    def remove(self, request_id: str) -> None:
        del self._waiting[request_id]

    def answer(self, event: Event) -> None:
        request = self._waiting.get(event.request_id)
        if request is not None:
            request.answer = event
            request.answered.set()

    def lost(self, error: ClientError) -> None:
        """The connection is lost."""
        for request in self._waiting.values():
            if request.posted:
                request.answer = error
                request.answered.set()

    def end(self) -> None:
        """The session is over."""
        for request in self._waiting.values():
            request.answered.set()
