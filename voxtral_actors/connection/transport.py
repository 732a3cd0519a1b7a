"""The port to one client's socket, as the actors of a connection see it.

The reader is the only caller of `receive`, and all else is called through the writer (the
supervisor takes its place once the writer is gone).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Protocol

CLIENT_LEFT: Final = "client_left"
SERVER_STOPPED: Final = "server_stopped"


class Disconnected(Exception):
    """The client is gone, or the socket was cut; `Transport.departure` says which."""


class Transport(Protocol):
    """An accepted WebSocket."""

    @property
    def departure(self) -> str:
        """Why the client is gone, as a slug: `client_left` unless the socket was cut for cause, or
        `server_stopped`.
        """

    async def receive(self) -> str | bytes:
        """The next message: text as str, binary as bytes (an empty one is empty bytes).

        Raises:
            Disconnected: no more messages will come.
        """

    def handing(self, pass_by: Callable[[str | bytes], bool]) -> AbstractContextManager[None]:
        """Inside, a message that comes while `receive` waits is given to `pass_by` first, in
        whatever task it comes; False: it is for `receive`. `pass_by` does not raise.
        """

    def write(self, text: str) -> bool:
        """Send one text message, as far as that needs no wait. False: wait in `drain` for the rest
        before anything else is sent.

        Raises:
            Disconnected: the client is gone.
        """

    async def drain(self) -> None:
        """Returns when the socket has taken what was written.

        Raises:
            Disconnected: the client is gone.
        """

    async def close(self, code: int, reason: str) -> None:
        """Send a Close frame; harmless when the client is gone already."""


async def send(transport: Transport, text: str) -> None:
    """Send one text message; returns when the socket has taken it.

    Raises:
        Disconnected: the client is gone.
    """
    if not transport.write(text):
        await transport.drain()
