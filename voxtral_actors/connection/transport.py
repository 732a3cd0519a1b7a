"""The port to one client's socket, as the actors of a connection see it.

The reader is the only caller of `receive`, the writer the only caller of `send` and `close` (the
supervisor takes its place once the writer is gone).
"""

from __future__ import annotations

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

    async def send(self, text: str) -> None:
        """Send one text message; returns when the socket has taken it.

        Raises:
            Disconnected: the client is gone.
        """

    async def close(self, code: int, reason: str) -> None:
        """Send a Close frame; harmless when the client is gone already."""
