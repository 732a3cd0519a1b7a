"""One utterance at the engine: the chain of streams that hears it, and the tasks that listen.

The chain (`utterance.chain`) says what has to be done; a voice does it to engine streams, and turns
what comes of it into what the session machine understands. That is synchronous, whether the client
or the engine is the cause, so whoever looks next finds chain and streams in agreement. What the
methods return is for the machine, at once and in order.

A stream that is lost costs an utterance nothing but time. Its audio is in the chain's journal, and
as soon as the engine can, another stream hears it. That is tried for VOXTRAL_REPLAY_BUDGET_S, and
not without end with audio that no engine survives (`losses`); 0 turns it off. A stream that has
become old or mute is followed by another one in the same way (`rolls`), and nobody waits for that.

Each open stream has a task, its downlink; there are two for a moment when the utterance goes over
to a new stream. A voice without any has a task that waits for the engine (`reopening`). They end by
themselves once the voice was let go, and are never cancelled by it: the one that says an
utterance's last word is among them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain

import trio

from voxtral_actors.connection import losses, rolls
from voxtral_actors.connection.backlog import Backlog
from voxtral_actors.connection.desk import Desk
from voxtral_actors.connection.link import Link, LinkStatistics
from voxtral_actors.connection.losses import Losses
from voxtral_actors.connection.reopening import Reopening
from voxtral_actors.engine.port import (
    EngineError,
    EngineEvent,
    EngineFullError,
    EngineStream,
    Failed,
    Finished,
    StreamSpec,
    Text,
)
from voxtral_actors.limits import BYTES_PER_SAMPLE
from voxtral_actors.protocol.signals import Broke, Completed, EngineSaid, Heard
from voxtral_actors.standstill import stood_still
from voxtral_actors.utterance import actions
from voxtral_actors.utterance.chain import Chain, ChainStatistics


class Voice:
    """See the module. Its tasks run in `nursery`; `key` is the machine's name for the utterance."""

    def __init__(self, key: int, label: str, desk: Desk, nursery: trio.Nursery) -> None:
        self._key = key
        self._label = label
        self._desk = desk
        self._nursery = nursery
        settings, timing = desk.settings, desk.info.timing
        self._budget = settings.replay_budget_s
        policy = rolls.policy(settings, desk.info, label)
        self._chain = Chain(policy, timing, losses.journal_cap(settings, timing))
        desk.figures.begins(self._chain)
        self._reopening = Reopening(desk, self._chain, self._attempt)
        self._links: dict[int, Link] = {}
        self._losses = Losses()
        self._refusal: EngineError | None = None
        self._stalled = False  # and so the last stream was lost
        self._limit = settings.max_audio_backlog_s
        self._over = False
        self._room = trio.lowlevel.ParkingLot()

    def statistics(self) -> tuple[LinkStatistics, ...]:
        """Its streams, the oldest first: one, two while it rolls, none while it waits."""
        return tuple(
            LinkStatistics(link.opened_at, link.backlog.statistics())
            for link in self._links.values()
        )

    def life(self) -> ChainStatistics:
        """What became of it so far."""
        return self._chain.statistics()

    def streams(self) -> list[EngineStream]:
        return [link.stream for link in self._links.values()]

    # --- The client's side -------------------------------------------------------------------

    def open(self) -> list[EngineSaid]:
        """Open the first stream. A full engine is an error at once: nobody waits in line."""
        said = self._do(self._chain.open())
        if self._refusal is None:
            return said
        broke = losses.refused(self._key, self._refusal)
        if isinstance(self._refusal, EngineFullError) or not self._budget:
            return [broke]
        self._wait_for_engine(broke)
        return said

    def feed(self, pcm: bytes) -> list[EngineSaid]:
        return self._do(self._chain.audio(pcm))

    def finish(self) -> list[EngineSaid]:
        return self._do(self._chain.finish())

    def abort(self) -> None:
        """Let go of everything, however far it is."""
        self._over = True
        self._chain.abandon()
        self._desk.figures.ends(self._chain)
        for number in list(self._links):
            self._let_go(number)
        self._reopening.stop()
        self._make_room()

    async def wait_room(self) -> None:
        """Wait until it is not full."""
        while self.full:
            await self._room.park()

    def _make_room(self) -> None:
        """Less audio waits, or other streams count."""
        if self._room:  # seldom, and to wake nobody is dear
            self._room.unpark_all()

    @property
    def full(self) -> bool:
        """Too much of its audio waits for the engine."""
        if self._over:
            return False
        waiting = 0.0 if self._links else self._chain.behind_s
        for link in self._links.values():
            waiting += link.backlog.waiting_s
        return waiting > self._limit

    # --- The chain's wishes ------------------------------------------------------------------

    def _do(self, wishes: Iterable[actions.Action]) -> list[EngineSaid]:
        said: list[EngineSaid] = []
        todo = deque(wishes)
        while todo:
            match todo.popleft():
                case actions.Open(stream=number):
                    todo.extend(self._open(number))
                case actions.Feed(stream=number, pcm=pcm):
                    link = self._links[number]
                    link.backlog.feed(len(pcm) // BYTES_PER_SAMPLE)
                    link.expect()
                    link.stream.feed(pcm)
                case actions.Finish(stream=number):
                    link = self._links[number]
                    link.backlog.finish()
                    link.expect()
                    link.stream.finish()
                case actions.LetGo(stream=number):
                    self._let_go(number)
                case actions.Say(text=text, consumed=consumed):
                    said.append(Heard(self._key, text, consumed))
                case actions.Complete(prompt_tokens=prompt, completion_tokens=completion):
                    said.append(Completed(self._key, prompt, completion))
                case actions.GiveUp(gap=gap):
                    self._desk.figures.given_up["gap"] += 1
                    said.append(losses.forgotten(self._key, gap))
        return said

    def _open(self, number: int) -> list[actions.Action]:
        old = next((link.stream for link in self._links.values()), None)
        try:
            stream = self._desk.engine.open(StreamSpec(self._label), beside=old)
        except EngineError as error:
            self._refusal = error
            return self._chain.refused(number)
        self._refusal = None
        backlog = Backlog(self._limit, self._desk.settings.backpressure_timeout_s)
        link = self._links[number] = Link(stream, backlog)
        self._nursery.start_soon(self._downlink, number, link)
        was = self._chain.statistics()
        todo = self._chain.opened(number)
        self._desk.figures.opened(was, self._chain.statistics(), stalled=self._stalled)
        self._make_room()
        return todo

    def _let_go(self, number: int) -> None:
        link = self._links.pop(number)
        link.backlog.end()
        link.stream.abort()
        self._make_room()

    # --- The engine's side -------------------------------------------------------------------

    async def _downlink(self, number: int, link: Link) -> None:
        """Bring what one stream says to the machine until the stream is over."""
        while True:
            with trio.CancelScope() as link.stall:
                await self._listen(number, link)
                return
            if not stood_still(link.backlog.deadline):
                break
            link.backlog.excuse()
        patience = self._desk.settings.backpressure_timeout_s
        broke = losses.stalled(self._key, link.backlog, patience)
        await self._tell(self._lose(number, broke, stalled=True))

    async def _listen(self, number: int, link: Link) -> None:
        while True:
            try:
                event = await link.receive()
            except trio.EndOfChannel:
                return
            await self._tell(self._hear(number, link, event))
            if isinstance(event, Finished | Failed):
                return
            link.backlog.progress(event.consumed)
            self._make_room()

    async def _tell(self, said: list[EngineSaid]) -> None:
        if said:
            await self._desk.tell(*said)

    def _hear(self, number: int, link: Link, event: EngineEvent) -> list[EngineSaid]:
        if number not in self._links:  # it was let go when this was on its way
            return []
        match event:
            case Failed():
                broke = losses.failed(self._key, event)
                return self._lose(number, broke) if event.retryable else [broke]
            case Finished() if not link.backlog.finishing:
                return self._lose(number, losses.ended_early(self._key))
            case Finished(prompt_tokens=prompt, completion_tokens=completion):
                self._let_go(number)
                return self._do(self._chain.ended(number, prompt, completion))
            case Text(pieces=[piece]):
                return self._use(number, link, *piece)
            case Text(pieces=pieces):
                return _joined(self._use(number, link, *piece) for piece in pieces)
            case _:
                return self._use(number, link, "", event.consumed)

    def _use(self, number: int, link: Link, text: str, consumed: int) -> list[EngineSaid]:
        return self._do(self._chain.heard(number, text, min(consumed, link.backlog.fed)))

    # --- Without a stream --------------------------------------------------------------------

    def _lose(self, number: int, broke: Broke, *, stalled: bool = False) -> list[EngineSaid]:
        """A stream is gone: `broke` is what the utterance ends in if it is not heard again."""
        if number not in self._links:
            return []
        if not self._budget:
            return [broke]
        self._stalled = stalled
        self._let_go(number)
        said = self._do(self._chain.lost(number))
        if not self._chain.waiting:
            return said
        if not self._losses.add(self._chain.position, self._chain.consumed, stalled=stalled):
            self._desk.figures.given_up["vain"] += 1
            return [losses.too_often(broke, self._chain.said_until)]
        self._wait_for_engine(broke)
        return said

    def _wait_for_engine(self, broke: Broke) -> None:
        settings = self._desk.settings
        # Whoever speaks live is not to be paused meanwhile, for then a cancel would wait as well.
        self._limit = settings.max_audio_backlog_s + self._budget
        self._desk.activity.touch()
        self._nursery.start_soon(self._reopen, broke)

    async def _reopen(self, broke: Broke) -> None:
        late = await self._reopening.wait(broke)
        if late is not None:
            await self._tell([late])

    def _attempt(self) -> Broke | None:
        """Open a stream; nothing is said before the engine has heard something."""
        self._do(self._chain.open())
        return losses.refused(self._key, self._refusal) if self._refusal is not None else None


def _joined(several: Iterable[list[EngineSaid]]) -> list[EngineSaid]:
    """All that was said, texts that follow one another as one."""
    joined: list[EngineSaid] = []
    for said in chain.from_iterable(several):
        last = joined[-1] if joined else None
        if isinstance(said, Heard) and isinstance(last, Heard):
            joined[-1] = Heard(said.key, last.text + said.text, said.consumed)
        else:
            joined.append(said)
    return joined
