"""The bridge: between the client's messages and the engine's streams, with the session machine.

One task, the uplink, feeds the machine with what the client says; one task for each open stream, a
downlink, feeds it with what the engine says; the timers feed it through `tell`. The machine is
stepped synchronously, and so is everything that its effects do to engine streams, before anything
is awaited: whoever steps next finds streams and machine in agreement. Events are sent after that,
step by step in order, and wait for the writer if they have to.

Uplink and downlinks are tasks of their own because the one waits for the engine to take audio while
the others take text from it; in one task they would wait for each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import attrs
import trio

from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.backlog import Backlog, BacklogStatistics
from voxtral_actors.connection.wiring import Outbound, pass_on
from voxtral_actors.engine.port import (
    Engine,
    EngineError,
    EngineEvent,
    EngineStream,
    Failed,
    Finished,
    Progress,
    StreamSpec,
    Text,
)
from voxtral_actors.limits import BYTES_PER_SAMPLE
from voxtral_actors.protocol import effects, events
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.commands import Inbound
from voxtral_actors.protocol.session import Session
from voxtral_actors.protocol.signals import (
    Broke,
    Closing,
    Completed,
    EngineSaid,
    Heard,
    Message,
    WindDown,
)
from voxtral_actors.settings import Settings
from voxtral_actors.standstill import stood_still

_TRANSCRIPTION = (events.Delta, events.Done)


@attrs.define
class Link:
    """One open engine stream, its backlog, and the scope that ends a wait for a stalled engine."""

    stream: EngineStream
    backlog: Backlog
    stall: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    opened_at: float = attrs.field(factory=trio.current_time)


@attrs.frozen
class LinkStatistics:
    """A moment of one open engine stream."""

    opened_at: float
    audio: BacklogStatistics


@attrs.frozen
class BridgeStatistics:
    """A moment of the bridge. While it is `serving`, there is one link an utterance that lives."""

    serving: bool
    moved_at: float
    """When the uplink last took a message."""
    links: Mapping[int, LinkStatistics]
    downlinks: int
    """Tasks that wait for text; for a moment also those of streams that are over."""


class Bridge:
    """See the module. `run` is the uplink and the home of the downlinks."""

    def __init__(
        self,
        session: Session,
        engine: Engine,
        outbound: trio.MemorySendChannel[Outbound],
        activity: Activity,
        settings: Settings,
    ) -> None:
        self.session = session
        self._engine = engine
        self._outbound = outbound
        self._activity = activity
        self._settings = settings
        self._links: dict[int, Link] = {}
        self._downlinks: trio.Nursery | None = None
        self._moved = Activity()
        self._quiet = trio.lowlevel.ParkingLot()
        self._speaking = trio.StrictFIFOLock()  # the events of one step are not mixed with others

    async def run(self, admitted: trio.MemoryReceiveChannel[Inbound]) -> None:
        """Work until `admitted` ends; whatever ends it, no engine stream stays open."""
        with admitted:
            try:
                async with trio.open_nursery() as self._downlinks:
                    async for message in admitted:
                        self._moved.touch()
                        await self.tell(message)
                        await self._wait_room()
            finally:
                self._downlinks = None
                for link in self._links.values():
                    link.stream.abort()
                self._links.clear()

    def statistics(self) -> BridgeStatistics:
        return BridgeStatistics(
            serving=self._downlinks is not None,
            moved_at=self._moved.last,
            links={
                key: LinkStatistics(link.opened_at, link.backlog.statistics())
                for key, link in self._links.items()
            },
            downlinks=len(self._downlinks.child_tasks) if self._downlinks is not None else 0,
        )

    def streams(self) -> list[EngineStream]:
        """The engine streams that it holds."""
        return [link.stream for link in self._links.values()]

    async def tell(self, message: Message) -> None:
        """Step the machine and do what it wants; returns when its events are on their way."""
        said: list[Outbound] = []
        todo = deque(self.session.step(message))
        while todo:
            match todo.popleft():
                case effects.Open(key=key, label=label):
                    todo.extend(self._open(key, label))
                case effects.Feed(key=key, audio=audio):
                    if link := self._links.get(key):
                        link.backlog.feed(len(audio) // BYTES_PER_SAMPLE)
                        if link.stall.deadline != link.backlog.deadline:  # setting it is dear
                            link.stall.deadline = link.backlog.deadline
                        link.stream.feed(audio)
                case effects.Finish(key=key):
                    if link := self._links.get(key):
                        link.backlog.finish()
                        link.stall.deadline = link.backlog.deadline
                        link.stream.finish()
                case effects.Abort(key=key):
                    if link := self._links.pop(key, None):
                        link.backlog.end()
                        link.stream.abort()
                case effects.Emit(event=event):
                    said.append(event)
                case effects.CloseConnection(close=close):
                    said.append(close)
        if self.session.quiet:
            self._quiet.unpark_all()
        if not said:
            return
        try:
            self._speaking.acquire_nowait()  # `acquire` gives the turn away even where it is free
        except trio.WouldBlock:
            await self._speaking.acquire()
        try:
            for item in said:
                if isinstance(item, _TRANSCRIPTION):
                    self._activity.touch()
                await pass_on(self._outbound, item)
        finally:
            self._speaking.release()

    async def quiet(self) -> None:
        """Wait until no utterance is alive."""
        while not self.session.quiet:
            await self._quiet.park()

    async def wind_down(self, close: Close, grace: float) -> None:
        """Take no more audio, give the last text `grace` seconds, close."""
        await self.tell(WindDown())
        with trio.move_on_after(grace):
            await self.quiet()
        await self.tell(Closing(close))

    def _open(self, key: int, label: str) -> list[effects.Effect]:
        try:
            stream = self._engine.open(StreamSpec(label))
        except EngineError as error:
            return self.session.step(Broke(key, error.code, error.reason_code, str(error)))
        settings = self._settings
        backlog = Backlog(settings.max_audio_backlog_s, settings.backpressure_timeout_s)
        self._links[key] = Link(stream, backlog)
        assert self._downlinks is not None  # noqa: S101 - a start comes through `run`
        self._downlinks.start_soon(self._downlink, key, self._links[key])
        return []

    async def _wait_room(self) -> None:
        """Do not read on while the engine is too far behind with the active utterance."""
        active = self.session.active
        if active is not None and (link := self._links.get(active.key)):
            await link.backlog.wait_room()

    async def _downlink(self, key: int, link: Link) -> None:
        """Bring one stream's events to the machine until the stream is over."""
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
                await self.tell(self._stalled(key, link.backlog))
                return
            await self.tell(_translate(key, event))
            if not isinstance(event, (Finished, Failed)):
                link.backlog.progress(event.consumed)

    def _stalled(self, key: int, backlog: Backlog) -> Broke:
        patience = self._settings.backpressure_timeout_s
        details: dict[str, object] = {"waiting_s": backlog.waiting_s, "timeout_s": patience}
        problem = f"the engine made no progress for {patience:g} s"
        if backlog.full:
            return Broke(key, "backlog_exceeded", "audio_backlog_full", problem, details)
        return Broke(key, "engine_unavailable", "engine_stalled", problem, details)


def _translate(key: int, event: EngineEvent) -> EngineSaid:
    match event:
        case Text(text=text, consumed=consumed):
            return Heard(key, text, consumed)
        case Progress(consumed=consumed):
            return Heard(key, "", consumed)
        case Finished():
            return Completed(key, event.prompt_tokens, event.completion_tokens)
        case Failed():
            retry: dict[str, object] = {"retry": event.retryable}
            return Broke(key, "engine_unavailable", event.reason_code, event.message, retry)
