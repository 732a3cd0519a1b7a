"""The reader: takes frames off the transport and decodes them. It ends when the client is gone."""

from __future__ import annotations

from collections.abc import Callable

from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.transport import Disconnected, Transport
from voxtral_actors.connection.wiring import Queue
from voxtral_actors.protocol.codec import decode
from voxtral_actors.protocol.commands import Inbound


class Reader:
    """The actor; one `run` per object. `pass_by` is that of the next actor."""

    def __init__(
        self,
        transport: Transport,
        inbound: Queue[Inbound],
        activity: Activity,
        max_bytes: int,
        pass_by: Callable[[Inbound], bool],
    ) -> None:
        self._transport = transport
        self._inbound = inbound
        self._activity = activity
        self._max_bytes = max_bytes
        self._pass_by = pass_by
        self._next: Inbound | None = None
        self._bug: Exception | None = None

    async def run(self) -> None:
        """Read until the client is gone."""
        with self._inbound.send, self._transport.handing(self.pass_by):
            while True:
                try:
                    frame = await self._transport.receive()
                except Disconnected:
                    return
                if self._bug is not None:
                    raise self._bug
                message, self._next = self._next, None
                if message is None:
                    message = self._read(frame)
                    if self._pass_by(message):
                        continue
                await self._inbound.put(message)

    def pass_by(self, frame: str | bytes) -> bool:
        """The transport's: act on a frame. False: it is for `run`."""
        try:
            self._next = self._read(frame)
            if not self._pass_by(self._next):
                return False
        except Exception as bug:  # it is this connection's, and none of the task's that calls
            self._bug = bug
            return False
        self._next = None
        return True

    def _read(self, frame: str | bytes) -> Inbound:
        self._activity.touch()
        return decode(frame, self._max_bytes)
