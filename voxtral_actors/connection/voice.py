"""One utterance at the engine: the chain of streams that hears it, and the tasks that listen.

The chain (`utterance.chain`) says what has to be done; a voice does it to engine streams, and turns
what comes of it into what the session machine understands. That is synchronous, whether the client
or the engine is the cause, so whoever looks next finds chain and streams in agreement. What the
methods return is for the machine, at once and in order.

A stream that is lost costs an utterance nothing but time. Its audio is in the chain's journal, and
as soon as the engine can, another stream hears it. That is tried for VOXTRAL_REPLAY_BUDGET_S, and
not without end with audio that no engine survives (`losses`); 0 turns it off.

Each open stream has a task, its downlink. A voice without a stream has one that waits for the
engine. They end by themselves once the voice was let go, and are never cancelled by it: the one
that says an utterance's last word is among them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

import attrs
import trio

from voxtral_actors.connection import losses
from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.backlog import Backlog
from voxtral_actors.connection.figures import UtteranceFigures
from voxtral_actors.connection.link import Link, LinkStatistics
from voxtral_actors.connection.losses import Losses
from voxtral_actors.engine.port import (
    Engine,
    EngineError,
    EngineEvent,
    EngineFullError,
    EngineInfo,
    EngineStream,
    Failed,
    Finished,
    StreamSpec,
    Text,
)
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE
from voxtral_actors.protocol.signals import Broke, Completed, EngineSaid, Heard
from voxtral_actors.settings import Settings
from voxtral_actors.standstill import stood_still
from voxtral_actors.utterance import actions
from voxtral_actors.utterance.chain import Chain
from voxtral_actors.utterance.segmenter import Policy


class Tell(Protocol):
    """Steps the session machine with these, at once; returns when its events are on their way."""

    async def __call__(self, *said: EngineSaid) -> None: ...


@attrs.frozen
class Desk:
    """What the voices of one connection share."""

    engine: Engine
    info: EngineInfo
    settings: Settings
    activity: Activity
    figures: UtteranceFigures
    tell: Tell


class Voice:
    """See the module. Its tasks run in `nursery`; `key` is the machine's name for the utterance."""

    def __init__(self, key: int, label: str, desk: Desk, nursery: trio.Nursery) -> None:
        self._key = key
        self._label = label
        self._desk = desk
        self._nursery = nursery
        settings, timing = desk.settings, desk.info.timing
        self._budget = settings.replay_budget_s
        policy = Policy(target_s=0, mute_s=0)
        self._chain = Chain(policy, timing, losses.journal_cap(settings, timing))
        self._links: dict[int, Link] = {}
        self._losses = Losses()
        self._refusal: EngineError | None = None
        self._limit = settings.max_audio_backlog_s
        self._over = False
        self._waiting = trio.CancelScope()
        self._room = trio.lowlevel.ParkingLot()

    def statistics(self) -> tuple[LinkStatistics, ...]:
        """Its streams: one, or none while it waits for the engine."""
        return tuple(
            LinkStatistics(link.opened_at, link.backlog.statistics())
            for link in self._links.values()
        )

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
        was, figures = self._chain.statistics(), self._desk.figures
        figures.replays += was.replays
        figures.replayed_s += was.replayed / SAMPLE_RATE
        for number in list(self._links):
            self._let_go(number)
        self._waiting.cancel(reason="the utterance is over")
        self._room.unpark_all()

    async def wait_room(self) -> None:
        """Wait until not too much of its audio waits for the engine."""
        while self._full:
            await self._room.park()

    @property
    def _full(self) -> bool:
        if self._over:
            return False
        links = self._links.values()
        waiting = sum(link.backlog.waiting_s for link in links) if links else self._chain.behind_s
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
        self._room.unpark_all()
        return said

    def _open(self, number: int) -> list[actions.Action]:
        try:
            stream = self._desk.engine.open(StreamSpec(self._label))
        except EngineError as error:
            self._refusal = error
            return self._chain.refused(number)
        self._refusal = None
        backlog = Backlog(self._limit, self._desk.settings.backpressure_timeout_s)
        link = self._links[number] = Link(stream, backlog)
        self._nursery.start_soon(self._downlink, number, link)
        return self._chain.opened(number)

    def _let_go(self, number: int) -> None:
        link = self._links.pop(number)
        link.backlog.end()
        link.stream.abort()

    # --- The engine's side -------------------------------------------------------------------

    async def _downlink(self, number: int, link: Link) -> None:
        """Bring what one stream says to the machine until the stream is over."""
        while True:
            with trio.CancelScope(deadline=link.backlog.deadline) as link.stall:
                try:
                    event = await link.stream.receive()
                except trio.EndOfChannel:
                    return
            if link.stall.cancelled_caught:
                if stood_still(link.backlog.deadline):
                    link.backlog.excuse()
                    continue
                patience = self._desk.settings.backpressure_timeout_s
                broke = losses.stalled(self._key, link.backlog, patience)
                await self._tell(self._lose(number, broke, stalled=True))
                return
            await self._tell(self._hear(number, link, event))
            if isinstance(event, Finished | Failed):
                return
            link.backlog.progress(event.consumed)
            self._room.unpark_all()

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
            case Finished() if not link.backlog.finishing and self._budget:
                return self._lose(number, losses.ended_early(self._key))
            case Finished(prompt_tokens=prompt, completion_tokens=completion):
                self._let_go(number)
                return self._do(self._chain.ended(number, prompt, completion))
            case _:
                text = event.text if isinstance(event, Text) else ""
                used = min(event.consumed, link.backlog.fed)
                return self._do(self._chain.heard(number, text, used))

    # --- Without a stream --------------------------------------------------------------------

    def _lose(self, number: int, broke: Broke, *, stalled: bool = False) -> list[EngineSaid]:
        """A stream is gone: `broke` is what the utterance ends in if it is not heard again."""
        if number not in self._links:
            return []
        if not self._budget:
            return [broke]
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
        """Have a stream again as soon as the engine can, or say that it took too long."""
        self._desk.figures.waits += 1
        self._desk.figures.waiting += 1
        try:
            late = await self._until_open(broke)
        finally:
            self._desk.figures.waiting -= 1
        self._desk.activity.touch()
        if late is not None:
            self._desk.figures.given_up["budget"] += 1
            await self._tell([late])

    async def _until_open(self, broke: Broke) -> Broke | None:
        """Wait for a stream, or for the utterance's end, or until the budget is over: an error."""
        since = trio.current_time()
        due, pause = since + self._budget, losses.REOPEN_FIRST_S
        while self._chain.waiting:
            with trio.CancelScope(deadline=due) as self._waiting:
                await self._desk.engine.wait_ready()
                if self._chain.waiting:
                    self._do(self._chain.open())  # says nothing: nobody has heard anything yet
                if self._chain.waiting:
                    await trio.sleep(pause)
                    pause = min(2 * pause, losses.REOPEN_MAX_S)
            if self._over or not self._waiting.cancelled_caught:
                continue
            if stood_still(due):
                due = trio.current_time() + self._budget
                continue
            if self._refusal is not None:
                broke = losses.refused(self._key, self._refusal)
            waited = trio.current_time() - since
            return losses.too_long(broke, waited, self._chain.said_until)
        return None
