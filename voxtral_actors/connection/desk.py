"""What the utterances of one connection share."""

from __future__ import annotations

from typing import Protocol

import attrs

from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.figures import UtteranceFigures
from voxtral_actors.engine.port import Engine, EngineInfo
from voxtral_actors.protocol.signals import EngineSaid
from voxtral_actors.settings import Settings


class Tell(Protocol):
    """Steps the session machine with these, at once; returns when its events are on their way."""

    async def __call__(self, *said: EngineSaid) -> None: ...


@attrs.frozen
class Desk:
    """See the module."""

    engine: Engine
    info: EngineInfo
    settings: Settings
    activity: Activity
    figures: UtteranceFigures
    tell: Tell
