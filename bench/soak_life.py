"""The life in a soak: people who connect, speak, change their mind, interrupt, and leave somehow.

A seat is one place in the crowd: it is never empty for long, for whoever leaves is followed by the
next. Everybody speaks at live pace, and every text is compared with what the scripted engine must
make of the audio. What is wrong is noted and the soak goes on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count

import attrs
import trio

from tests.engine.script import FRAME_BYTES, speech, transcript
from tests.server.server_process import ServerProcess
from tests.server.wire_client import Client
from voxtral_actors.groups import describe
from voxtral_actors.protocol.events import Cancelled, Done, Event, SessionEnd

STEP_S = 0.08
LONGEST_S = 8.0
IDLE_S = 5.0
"""WS_IDLE_TIMEOUT_S of the server."""
PATIENCE_S = 30.0
"""For an answer; a soak is about what grows, and a machine may be busy for a moment."""
VOICES = 16


@attrs.define
class Crowd:
    """All seats, and what has happened in them."""

    server: ServerProcess
    seats: int
    seed: int = 1
    happened: Counter[str] = attrs.field(factory=Counter)
    wrong: list[str] = attrs.field(factory=list)
    _voices: list[bytes] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._voices = [speech(LONGEST_S, seed) for seed in range(VOICES)]

    async def run(self, seconds: float) -> None:
        """Fill the seats, and let the last ones leave in their own time after so many seconds."""
        until = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            for number in range(self.seats):
                nursery.start_soon(self._seat, random.Random(f"{self.seed}/{number}"), until)

    async def _seat(self, rng: random.Random, until: float) -> None:
        await trio.sleep(rng.uniform(0, 2))  # not all at once, and not in step
        while trio.current_time() < until:
            try:
                async with self.server.session() as client:
                    await self._life(client, rng, until)
            except* (AssertionError, OSError, EOFError, trio.TooSlowError) as group:
                self.wrong.append(describe(group))
                await trio.sleep(1)
            except* trio.BrokenResourceError:
                self.wrong.append("the connection was reset")
                await trio.sleep(1)

    async def _life(self, client: Client, rng: random.Random, until: float) -> None:
        self.happened["sessions"] += 1
        person = Person(client, rng, self.happened, self._voices)
        for _ in range(rng.randint(1, 5)):
            if trio.current_time() > until:
                break
            with trio.fail_after(2 * LONGEST_S + PATIENCE_S):
                await rng.choices(*person.acts)[0]()
        with trio.fail_after(IDLE_S + PATIENCE_S):
            await rng.choices(*person.exits)[0]()


Act = Callable[[], Awaitable[None]]


class Person:
    """One connection's client."""

    def __init__(
        self, client: Client, rng: random.Random, happened: Counter[str], voices: list[bytes]
    ) -> None:
        self._client = client
        self._rng = rng
        self._happened = happened
        self._voices = voices
        self._names = (f"utterance {number}" for number in count(1))
        self.acts: tuple[list[Act], list[int]] = ([self.say, self.cancel, self.barge_in], [6, 2, 2])
        self.exits: tuple[list[Act], list[int]] = (
            [self.end, self.close, self.reset, self.reset_in_speech, self.fall_silent],
            [4, 2, 2, 2, 1],
        )

    async def say(self) -> None:
        """An utterance, to its last word."""
        self._happened["utterances"] += 1
        pcm = self._words()
        text, last = await self._utter(pcm, self._client.finish)
        assert isinstance(last, Done), last
        assert text == transcript(pcm), "a wrong text"

    async def cancel(self) -> None:
        self._happened["cancels"] += 1
        pcm = self._words()
        text, last = await self._utter(pcm, partial(self._client.say, "cancel"))
        assert isinstance(last, Cancelled), last
        assert transcript(pcm).startswith(text), "a wrong text"

    async def _utter(
        self, pcm: bytes, stop: Callable[[str], Awaitable[object]]
    ) -> tuple[str, Event]:
        """Say this, then `stop` it; the text that came of it, and its end."""
        name = next(self._names)

        async def speak() -> None:
            await self._speak(name, pcm)
            await stop(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            return await self._client.transcript(name)

    async def barge_in(self) -> None:
        """Speak, and start anew in the middle of it."""
        self._happened["barge-ins"] += 1
        first, second = next(self._names), next(self._names)
        lost, kept = self._words(), self._words()

        async def speak() -> None:
            await self._speak(first, lost)
            await self._speak(second, kept)
            await self._client.finish(second)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            text, last = await self._client.transcript(first)
            assert isinstance(last, Cancelled), last
            assert transcript(lost).startswith(text), "a wrong text"
            text, last = await self._client.transcript(second)
        assert isinstance(last, Done), last
        assert text == transcript(kept), "a wrong text"

    async def end(self) -> None:
        self._happened["left by end"] += 1
        await self._client.say("end")
        await self._client.hear(SessionEnd)
        assert (await self._client.closed())[0] == 1000

    async def close(self) -> None:
        self._happened["left by close"] += 1
        await self._client.close()

    async def reset(self) -> None:
        self._happened["left by reset"] += 1
        await self._client.reset()

    async def reset_in_speech(self) -> None:
        self._happened["left by reset in speech"] += 1
        await self._speak(next(self._names), self._words())
        await self._client.reset()

    async def fall_silent(self) -> None:
        self._happened["left by idle timeout"] += 1
        await self._client.hear(SessionEnd)
        assert (await self._client.closed())[0] == 4000

    def _words(self) -> bytes:
        frames = self._rng.randint(3, round(LONGEST_S / 2 / STEP_S))
        begin = self._rng.randrange(round(LONGEST_S / 2 / STEP_S))
        voice = self._rng.choice(self._voices)
        return voice[begin * FRAME_BYTES : (begin + frames) * FRAME_BYTES]

    async def _speak(self, name: str, pcm: bytes) -> None:
        """At live pace: a chunk goes out when its last sample has been spoken."""
        await self._client.start(name)
        due = trio.current_time()
        for at in range(0, len(pcm), FRAME_BYTES):
            due += STEP_S
            await trio.sleep_until(due)
            await self._client.send(pcm[at : at + FRAME_BYTES])
            self._happened["chunks"] += 1
