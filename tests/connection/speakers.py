"""Who speaks words, and an engine that hears them: for utterances that are cut in the middle.

The scripted engine's own words are frames, and a stream that begins elsewhere would hear others.
`tests.utterance.hearing` has words that last, and knows them by whatever part of them it hears.
`LIVE` is an engine whose streams wear out, a little faster than people speak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import trio

from tests.connection.fakes import Connection
from tests.engine.scripted import FRAME_BYTES, Part, Script
from tests.utterance import hearing
from tests.utterance.hearing import Hearing, Spoken
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE

LIVE = Script(step_s=0.04, slots=2, spare=1, rolls=True, timing=hearing.TIMING)


class Listener(Part):
    """One stream of the recogniser, which misbehaves by script like any other."""

    def __init__(self, speech: Sequence[Spoken], script: Script, label: str) -> None:
        super().__init__(script, label)
        self._hearing = Hearing(speech, str)

    def feed(self, pcm: bytes) -> None:
        self.fed += len(pcm)
        self._hearing.feed(pcm)

    @property
    def complete(self) -> bool:
        return self._hearing.over

    def hear(self) -> str | None:
        self._hearing.finished = self.finished
        said = self._hearing.step()
        self.consumed = self._hearing.consumed
        return said


def listening(speech: Sequence[Spoken]) -> Callable[[Script, str], Part]:
    """What hears the streams of an engine that knows these words."""
    return partial(Listener, speech)


def seconds(part: Part) -> float:
    """The audio that a stream was fed."""
    return part.fed / BYTES_PER_SAMPLE / SAMPLE_RATE


async def speak(connection: Connection, pcm: bytes, name: str = "a", pace: float = 0.08) -> None:
    """An utterance at live pace, ended but not waited for."""
    client = connection.client
    client.start(name)
    for start in range(0, len(pcm), FRAME_BYTES):
        client.audio(pcm[start : start + FRAME_BYTES], name)
        await trio.sleep(pace)
    client.finalise(name)


async def until_it_rolls(connection: Connection, times: int = 1) -> None:
    """Wait until it has two streams, so many times."""
    engine = connection.house.engine
    for _ in range(times):
        await until_it_rolled(connection)
        while not engine.statistics().slots_rolling:  # noqa: ASYNC110 - nobody signals it
            await trio.sleep(0.005)


async def until_it_rolled(connection: Connection) -> None:
    """Wait until it has one stream again."""
    while connection.house.engine.statistics().slots_rolling:  # noqa: ASYNC110 - likewise
        await trio.sleep(0.005)
