"""Finding an engine by its name: entry points of the group `voxtral_actors.engines`.

An entry point is a callable that takes the settings and returns a new `port.Backend`; it is called
once for each life of the engine. So an engine can live outside this repository.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points

from voxtral_actors.engine.port import Backend
from voxtral_actors.settings import Settings

GROUP = "voxtral_actors.engines"


class EngineSetupError(Exception):
    """The engine cannot be loaded, and trying again will not help; the message says what to do."""


def load(settings: Settings) -> Callable[[], Backend]:
    """The maker of backends for `settings.engine`.

    Raises:
        EngineSetupError: there is no such engine, or it cannot be imported.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    entry = found.get(settings.engine)
    if entry is None:
        allowed = ", ".join(sorted(found)) or "none is installed"
        raise EngineSetupError(f"VOXTRAL_ENGINE is {settings.engine!r}; allowed: {allowed}.")
    try:
        create = entry.load()
        # Made once now and thrown away: what is missing should be said before the port is open.
        create(settings)
    except (ImportError, EngineSetupError) as error:
        raise EngineSetupError(f"the engine {settings.engine!r} cannot be used: {error}") from error
    return partial(create, settings)
