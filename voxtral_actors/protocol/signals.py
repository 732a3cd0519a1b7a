"""What reaches the session machine from inside: the engine's word and the server's wishes.

`key` is the one under which the machine opened the stream (`effects.Open`).
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.commands import Inbound


@attrs.frozen
class Heard:
    """The engine has used `consumed` samples of stream `key` and heard `text` (may be empty)."""

    key: int
    text: str
    consumed: int


@attrs.frozen
class Completed:
    """The engine has transcribed the whole of stream `key`."""

    key: int
    prompt_tokens: int
    completion_tokens: int


@attrs.frozen
class Broke:
    """Stream `key` could not be opened or ended early; the rest is the error that it earns."""

    key: int
    code: str
    reason_code: str
    message: str
    details: dict[str, object] = attrs.field(factory=dict)


@attrs.frozen
class StopStarts:
    """The server drains: what runs may finish, nothing new starts."""


@attrs.frozen
class WindDown:
    """No more audio is taken: what is active is finalised."""


@attrs.frozen
class Closing:
    """The connection ends now, for this reason: what still runs is cancelled."""

    close: Close


EngineSaid: TypeAlias = Heard | Completed | Broke
Message: TypeAlias = Inbound | EngineSaid | StopStarts | WindDown | Closing
