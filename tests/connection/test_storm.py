"""Storms: random clients against a random engine, for many seeds, in virtual time.

The judge in `client.py` sits in each of them. What is checked here comes on top: at the end each
utterance has had its one last event, and a text is the text of the audio that was said.

A storm that fails is known by its seed, which is in the test's id.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from functools import partial

import pytest
import trio

from tests.connection.client import Client
from tests.connection.fakes import Connection, House, house, simulate
from tests.engine.scripted import random_script, speech, transcript
from voxtral_actors.limits import ENGINE_RELEASE_S, ENGINE_RESTART_MAX_S
from voxtral_actors.protocol import events
from voxtral_actors.protocol.closing import Close

PATIENCE_S = 4.0
SEEDS_A_TEST = 16
AGAIN = b"used again"
"""What stands in the audio of a request id that was used more than once."""
AS_SAID = (None, Close.NORMAL, Close.IDLE, Close.SLOW_CONSUMER, Close.TOO_BIG, Close.TOO_MANY_BAD)
"""Endings before which the server has cut nobody short."""


class StormyClient:
    """Says anything at any time, and keeps the audio of each utterance that it says in order."""

    def __init__(self, connection: Connection, rng: random.Random) -> None:
        self.connection = connection
        self.client: Client = connection.client
        self.said: defaultdict[str, bytes] = defaultdict(bytes)
        self._rng = rng
        self._open: str | None = None
        self._starts = 0

    async def run(self, steps: int) -> None:
        weights = {
            self.start: 4, self.append: 16, self.finalise: 4, self.cancel: 2, self.stray: 2,
            self.noise: 2, self.again: 1, self.pause: 6, self.doze: 1,
        }  # fmt: skip
        for _ in range(steps):
            (do,) = self._rng.choices(list(weights), list(weights.values()))
            do()
            if do in (self.pause, self.doze):
                await trio.sleep(self._rng.expovariate(2))
                self.client.read_again()
        self.finalise()
        self.client.cancel("nobody")  # whatever a refused start has left active

    def start(self) -> None:
        self._starts += 1
        self._open = f"u{self._starts}"
        self.client.start(self._open)

    def append(self) -> None:
        if self._open:
            pcm = speech(self._rng.choice((0.03, 0.08, 0.3, 1.5)), self._rng.randrange(10**6))
            self.said[self._open] += pcm
            self.client.audio(pcm, self._open)

    def finalise(self) -> None:
        if self._open:
            self.client.finalise(self._open)
            self._open = None

    def cancel(self) -> None:
        self.client.cancel(self.some_name())

    def again(self) -> None:
        """A request id that was used before; its text is not looked at any more."""
        name = self.some_name()
        self.said[name] += AGAIN
        self.client.start(name)
        self._open = name

    def stray(self) -> None:
        name = f"stray{self._rng.randrange(9)}"
        if self._rng.random() < 0.5:
            self.client.audio(speech(0.1), name)
        else:
            self.client.finalise(name)

    def noise(self) -> None:
        if self._rng.random() < 0.3:
            self.client.frame(self._rng.choice(("{", b"odd", b"", "[]")))
        else:
            self.client.say(self._rng.choice(("ping", "session.update", "no.such.type")), model="x")

    def pause(self) -> None:
        """Time passes."""

    def doze(self) -> None:
        self.client.stop_reading()

    def some_name(self) -> str:
        return f"u{self._rng.randint(1, max(self._starts, 1))}"

    def check(self, close: Close | None) -> None:
        """Right after the connection ended or had all the time that it needs."""
        alive = self.client.alive
        if close is None:
            assert not +alive, "an utterance has had no last event"
        elif close is not Close.SLOW_CONSUMER:  # which has not listened to the last events
            # What was said after the end has no answer; everything before it has.
            names = [name for name in alive if AGAIN not in self.said[name]]
            assert [alive[name] for name in names] == sorted(alive[name] for name in names)
        if close in AS_SAID:
            for done in (e for e in self.client.heard if isinstance(e, events.Done)):
                pcm = self.said[done.request_id]
                if AGAIN not in pcm:
                    assert done.text == transcript(pcm), done.request_id


async def one_client(here: House, rng: random.Random) -> Counter[str]:
    """A connection that ends in one way or another; returns what was seen."""
    async with here.connect(
        max_messages_per_window=0,
        max_cancels_per_window=0,
        max_bad_messages=rng.choice((0, 0, 0, 10)),
        max_audio_backlog_s=rng.choice((0.5, 3)),
        backpressure_timeout_s=PATIENCE_S,
        replay_budget_s=rng.choice((0, 5, 60)),
        write_deadline_s=rng.choice((2, 100)),
        idle_timeout_s=rng.choice((0, 20)),
        max_duration_s=rng.choice((0, 0, 0, 15)),
        close_grace_s=rng.choice((0, 2)),
    ) as connection:
        stormy = StormyClient(connection, rng)
        with trio.move_on_after(rng.choice((5, 1000))) as until_it_leaves:
            await stormy.run(rng.randint(5, 120))
            # Each stall in the queue has its patience, and so has a stuck engine.
            await trio.sleep(40 * PATIENCE_S + ENGINE_RELEASE_S + 2 * ENGINE_RESTART_MAX_S)
            if connection.outcomes:
                stormy.check(connection.outcomes[0].close)
            else:
                stormy.check(None)
                stormy.client.say("end", "bye")
                assert (await connection.ended()).close is Close.NORMAL
        how = "left" if until_it_leaves.cancelled_caught else connection.outcomes[0].reason
        return Counter([how, *(type(event).__name__ for event in stormy.client.heard)])


async def storm(seed: int) -> Counter[str]:
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    script = random_script(rng)
    async with house(script, lambda _: random_script(rng)) as here:

        async def one(number: int) -> None:
            seen.update(await one_client(here, random.Random(f"{seed}/{number}")))

        async with trio.open_nursery() as nursery:
            for number in range(rng.randint(1, 3)):
                nursery.start_soon(one, number)
            if rng.random() < 0.2:
                await trio.sleep(rng.expovariate(0.1))
                here.drain.start(trio.current_time() + rng.choice((1, 10)))
    return seen


@pytest.mark.parametrize("batch", range(8))
def test_p11_p12_storms(batch: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(batch * SEEDS_A_TEST, (batch + 1) * SEEDS_A_TEST):
        try:
            seen += simulate(partial(storm, seed), seed=seed)
        except BaseException as error:
            error.add_note(f"the storm of seed {seed}")
            raise
    assert {"Done", "Cancelled", "Error", "Delta", "end", "left"} <= seen.keys()
