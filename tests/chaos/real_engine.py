"""Engines that a real server process finds by their entry points, without being installed.

`path` makes a folder that looks like an installed distribution; with it on PYTHONPATH, a server of
this interpreter may be told `VOXTRAL_ENGINE=scripted`. Its text is a function of the audio alone.
"""

from __future__ import annotations

import gc
import signal
import time
from itertools import cycle
from pathlib import Path

from tests.engine.script import Part, Script
from tests.engine.scripted import Scripted, ScriptedBackend
from voxtral_actors.engine.port import StreamSpec
from voxtral_actors.engine.sphinx_limits import SLOTS_A_CONNECTION
from voxtral_actors.settings import Settings

ROOT = Path(__file__).parents[2]
ENGINES = ("scripted", "leaping")
DAY_S = 86_400.0


class Forgetful(Scripted):
    """Keeps no record of its streams, so that what it holds does not grow with them."""

    def cast(self, spec: StreamSpec) -> Part:
        return Part(self.script, spec.label)


def scripted(settings: Settings) -> ScriptedBackend:
    """A healthy engine. SIGUSR1 collects the garbage of its process: what is left is held."""
    signal.signal(signal.SIGUSR1, lambda *_: gc.collect())
    slots = settings.max_connections * SLOTS_A_CONNECTION
    return Forgetful(Script(slots=slots)).backend()


def leaping(settings: Settings) -> ScriptedBackend:
    """The same in a process whose wall clock leaps by a day, back and forth, at every look."""
    leaps = cycle((DAY_S, -DAY_S, 0.0))
    right_s, right_ns = time.time, time.time_ns
    time.time = lambda: right_s() + next(leaps)
    time.time_ns = lambda: right_ns() + round(next(leaps) * 1e9)
    return scripted(settings)


def path(folder: Path) -> str:
    """A PYTHONPATH with which a process finds the engines."""
    metadata = folder / "engines_for_tests-1.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: engines-for-tests\nVersion: 1\n"
    )
    lines = [f"{name} = {__name__}:{name}" for name in ENGINES]
    (metadata / "entry_points.txt").write_text("\n".join(["[voxtral_actors.engines]", *lines, ""]))
    return f"{folder}:{ROOT}"
