"""The engine actor under anything: exact accounts (P5), and one end for every stream (P11).

P5 takes a backend by the hand and compares with a model after each step. P11 lets the scripted
engine misbehave in virtual time, with a seed for everything that is random, the scheduler included;
a failure names its seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

import attrs
import pytest
import structlog
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from tests.engine.engine_harness import SPEC, hear
from tests.engine.script import TIMING
from tests.engine.scripted import Scripted, ScriptedError, random_script, transcript
from voxtral_actors import limits
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.engine.port import (
    BackendEvent,
    Deliver,
    EngineError,
    EngineFullError,
    EngineInfo,
    EngineStream,
    Failed,
    Finished,
    Progress,
    Released,
    StreamSpec,
    Text,
)

# --- P5: accounts ----------------------------------------------------------------------------

SLOTS = 3


class Puppet:
    """A backend, over all its lives, that does nothing by itself."""

    def __init__(self) -> None:
        self.delivers: list[Deliver] = []
        self.aborts = 0
        self._dead = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[EngineInfo]) -> None:
        self._dead = trio.Event()
        task_status.started(EngineInfo("puppet", "tiny", SLOTS, 0, timing=TIMING))
        await self._dead.wait()
        raise ScriptedError("dead")

    def open(self, spec: StreamSpec, deliver: Deliver) -> Puppet:
        self.delivers.append(deliver)
        return self

    def feed(self, pcm: bytes) -> None: ...

    def finish(self) -> None: ...

    def abort(self) -> None:
        self.aborts += 1

    def die(self) -> None:
        self._dead.set()


@attrs.define
class Account:
    """What is known of one stream."""

    stream: EngineStream
    held: bool = True
    over: bool = False
    aborted: bool = False


Call = Literal["feed", "finish", "abort"]
Step = tuple[Literal["open", "die"], None] | tuple[int, Call | BackendEvent]
EVENTS: list[BackendEvent] = [Text("a", 1), Text("", 0), Progress(2), Finished(3), Failed("x", "y")]
WHICH = st.integers(0, 10)
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.none()),
        st.tuples(WHICH, st.sampled_from(["feed", "finish", "abort", "abort"])),
        st.tuples(WHICH, st.sampled_from([*EVENTS, Released(), Released()])),
        st.tuples(st.just("die"), st.none()),
    ),
    max_size=60,
)


class Model:
    """The accounts as they have to be."""

    def __init__(self) -> None:
        self.puppet = Puppet()
        self.actor = EngineActor(lambda: self.puppet)
        self.accounts: list[Account] = []
        self.refused = self.dropped = self.aborts = self.deaths = 0

    @property
    def held(self) -> int:
        return sum(account.held for account in self.accounts)

    @property
    def leaving(self) -> int:
        return sum(account.held and account.over for account in self.accounts)

    def open(self) -> None:
        if self.held - self.leaving < SLOTS and self.held < 2 * SLOTS:
            self.accounts.append(Account(self.actor.open(SPEC)))
        else:
            self.refused += 1
            with pytest.raises(EngineFullError):
                self.actor.open(SPEC)

    def call(self, number: int, what: Call) -> None:
        account = self.accounts[number]
        match what:
            case "feed":
                account.stream.feed(b"ab")
            case "finish":
                account.stream.finish()
            case "abort":
                account.stream.abort()
                self.aborts += account.held and not account.aborted
                account.over = account.aborted = True

    def deliver(self, number: int, event: BackendEvent) -> None:
        account = self.accounts[number]
        self.puppet.delivers[number](event)
        if not account.held or (account.over and event != Released()):
            self.dropped += 1
        elif event == Released():
            account.held = False
            account.over = True
        else:
            account.over = isinstance(event, Finished | Failed)

    async def die(self) -> None:
        self.puppet.die()
        self.deaths += 1
        for account in self.accounts:
            account.held = False
            account.over = True
        while self.actor.statistics().deaths < self.deaths:
            await trio.lowlevel.checkpoint()
        self.check(ready=False)
        await self.actor.wait_ready()

    def check(self, *, ready: bool = True) -> None:
        accounts = self.actor.statistics()
        assert accounts.ready is ready
        assert accounts.slots == (SLOTS if ready else 0)
        assert accounts.slots_taken == self.held
        assert accounts.streams_opened == len(self.accounts)
        assert accounts.streams_refused == self.refused
        assert accounts.events_dropped == self.dropped
        assert accounts.deaths == self.deaths
        assert self.puppet.aborts == self.aborts

    async def walk(self, steps: list[Step]) -> None:
        with trio.fail_after(10_000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.actor.run)
                await self.actor.wait_ready()
                for step in steps:
                    await self.step(step)
                    self.check()
                for number, account in enumerate(self.accounts):
                    if account.held:
                        self.deliver(number, Released())
                self.check()
                assert self.actor.statistics().slots_taken == 0
                for account in self.accounts:
                    await hear(account.stream)  # ends
                nursery.cancel_scope.cancel()

    async def step(self, step: Step) -> None:
        match step:
            case ("open", _):
                self.open()
            case ("die", _):
                await self.die()
            case (int(which), what):
                if not self.accounts or what is None:
                    return
                number = which % len(self.accounts)
                if isinstance(what, str):
                    self.call(number, what)
                else:
                    self.deliver(number, what)


OPEN: Step = ("open", None)
# Opened beyond the slots while streams leave, up to twice as many, and refused there.
BURIED: list[Step] = [
    *[OPEN] * SLOTS,
    *[(number, "abort") for number in range(SLOTS)],
    *[OPEN] * SLOTS,
    *[(number, "abort") for number in range(SLOTS, 2 * SLOTS)],
    OPEN,
]


@given(STEPS)
@example(BURIED)
def test_p5_slots_and_counters_are_exact_after_any_steps(steps: list[Step]) -> None:
    with structlog.testing.capture_logs():
        trio.run(Model().walk, steps, clock=trio.testing.MockClock(autojump_threshold=0))


# --- P11: one end ----------------------------------------------------------------------------

PATIENCE_S = 30
"""After so long without an event a client aborts, as the bridge does with a stalled engine."""


@attrs.define
class Outcome:
    said: bytes = b""
    text: str = ""
    last: Finished | Failed | Literal["aborted", "refused"] | None = None


async def client(actor: EngineActor, rng: random.Random, outcome: Outcome) -> None:
    """One utterance: gets a slot, speaks and listens, then finishes, aborts, or just stops."""
    for _ in range(300):
        await trio.sleep(rng.expovariate(1))
        try:
            stream = actor.open(SPEC)
            break
        except EngineError:
            continue
    else:  # the engine dies as soon as it is ready, each time
        outcome.last = "refused"
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, stream, outcome)
        for _ in range(rng.randrange(12)):
            piece = rng.randbytes(2 * rng.randrange(4000))
            outcome.said += piece
            stream.feed(piece)
            await trio.sleep(rng.choice((0, 0.08, rng.random())))
        ending = rng.choice(("finish", "finish", "abort", "stop"))
        if ending == "finish":
            stream.finish()
        elif ending == "abort":
            stream.abort()


async def listen(stream: EngineStream, outcome: Outcome) -> None:
    consumed = 0
    while True:
        with trio.move_on_after(PATIENCE_S) as patience:
            try:
                event = await stream.receive()
            except trio.EndOfChannel:
                break
        if patience.cancelled_caught:
            stream.abort()
            continue
        assert outcome.last is None, f"{event} came after {outcome.last}"
        if isinstance(event, Finished | Failed):
            outcome.last = event
        else:
            assert consumed <= event.consumed <= len(outcome.said) // 2
            consumed = event.consumed
            outcome.text += event.text if isinstance(event, Text) else ""
    outcome.last = outcome.last or "aborted"


async def storm(seed: int) -> list[Outcome]:
    rng = random.Random(seed)
    scripted = Scripted(random_script(rng), streams=lambda _: random_script(rng))
    actor = EngineActor(scripted.backend)
    outcomes = [Outcome() for _ in range(rng.randint(1, 8))]
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor.run)
            async with trio.open_nursery() as clients:
                for number, outcome in enumerate(outcomes):
                    clients.start_soon(client, actor, random.Random(f"{seed}/{number}"), outcome)
            await trio.sleep(limits.ENGINE_RELEASE_S + 1)
            assert actor.statistics().slots_taken == 0
            nursery.cancel_scope.cancel()
    statistics = actor.statistics()
    assert statistics.starts + statistics.deaths >= scripted.starts
    return outcomes


def check(outcome: Outcome) -> None:
    match outcome.last:
        case Finished(consumed=consumed):
            assert outcome.text == transcript(outcome.said)
            assert consumed == len(outcome.said) // 2
        case Failed():
            assert transcript(outcome.said).startswith(outcome.text)
            assert outcome.last.reason_code in {"scripted", "engine_lost", "engine_stream_lost"}
        case _:
            assert outcome.last in {"aborted", "refused"}
            assert transcript(outcome.said).startswith(outcome.text)


@pytest.fixture
def seeded_scheduler(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    run = trio._core._run
    monkeypatch.setattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    return run._r.seed


@pytest.mark.parametrize("block", range(6))
def test_p11_every_stream_has_one_end_whatever_the_engine_does(
    block: int, seeded_scheduler: Callable[[int], None]
) -> None:
    ends: set[str] = set()
    for seed in range(100 * block, 100 * block + 100):
        seeded_scheduler(seed)
        try:
            with structlog.testing.capture_logs():
                clock = trio.testing.MockClock(autojump_threshold=0)
                outcomes = trio.run(storm, seed, clock=clock)
            for outcome in outcomes:
                check(outcome)
                ends.add(type(outcome.last).__name__)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert ends == {"Finished", "Failed", "str"}  # else the storm is a breeze
