"""What the session machine wants done: one frozen noun each, joined in the union `Effect`.

`key` names an engine stream of this connection and is never used twice.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.events import Event


@attrs.frozen
class Open:
    """Open an engine stream; `label` is for logs."""

    key: int
    label: str


@attrs.frozen
class Feed:
    """Hand audio to a stream."""

    key: int
    audio: bytes


@attrs.frozen
class Finish:
    """Tell a stream that its audio is complete."""

    key: int


@attrs.frozen
class Abort:
    """Let go of a stream, whether it still runs or not."""

    key: int


@attrs.frozen
class Emit:
    """Send an event to the client."""

    event: Event


@attrs.frozen
class CloseConnection:
    """Close the WebSocket, after everything emitted before."""

    close: Close


Effect: TypeAlias = Open | Feed | Finish | Abort | Emit | CloseConnection
