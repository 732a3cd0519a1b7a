"""Finding an engine by its name: entry points of the group `voxtral_actors.engines`.

An entry point is a callable that takes the settings and returns a new `port.Backend`; it is called
once for each life of the engine. So an engine can live outside this repository.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from voxtral_actors.engine.port import Backend
from voxtral_actors.setting_types import find_engine
from voxtral_actors.settings import Settings


class EngineSetupError(Exception):
    """The engine cannot be loaded, and trying again will not help; the message says what to do."""


def load(settings: Settings) -> Callable[[], Backend]:
    """The maker of backends for `settings.engine`.

    Raises:
        EngineSetupError: there is no such engine, or it cannot be imported.
    """
    try:
        entry = find_engine(settings.engine)
    except ValueError as error:
        raise EngineSetupError(str(error)) from None
    try:
        create = entry.load()
        # Made once now and thrown away: what is missing should be said before the port is open.
        create(settings)
    except (ImportError, EngineSetupError) as error:
        raise EngineSetupError(f"the engine {settings.engine!r} cannot be used: {error}") from error
    return partial(create, settings)
