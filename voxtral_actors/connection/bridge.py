"""The bridge: between the client's messages and the engine's streams, with the session machine.

One task, the uplink, feeds the machine with what the client says, as far as it was not passed by;
one task for each open stream, a downlink, feeds it with what the engine says; the timers feed it
through `tell`. What the machine
calls a stream is a `Voice`: the utterance at the engine, in as many streams as it takes. The
machine is stepped synchronously, and so is everything that its effects do to voices, before
anything is awaited: whoever steps next finds voices and machine in agreement. Events are sent after
that, step by step in order, and wait for the writer if they have to.

Uplink and downlinks are tasks of their own because the one waits for the engine to take audio while
the others take text from it; in one task they would wait for each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping

import attrs
import trio

from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.desk import Desk
from voxtral_actors.connection.figures import UtteranceFigures
from voxtral_actors.connection.link import LinkStatistics
from voxtral_actors.connection.voice import Voice
from voxtral_actors.connection.wiring import Outbound, Wiring
from voxtral_actors.engine.port import Engine, EngineInfo, EngineStream
from voxtral_actors.protocol import effects, events
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.commands import Inbound
from voxtral_actors.protocol.session import Session
from voxtral_actors.protocol.signals import Closing, EngineSaid, Message, WindDown
from voxtral_actors.settings import Settings
from voxtral_actors.utterance.chain import ChainStatistics

_TRANSCRIPTION = (events.Delta, events.Done)
_LAST = {events.Done: "done", events.Cancelled: "cancelled", events.Error: "error"}
"""What an utterance came to, by the event that it ends in."""


@attrs.frozen
class BridgeStatistics:
    """A moment of the bridge. While it is `serving`, each utterance that lives has its place in
    `links`, with no stream while it waits for the engine, and two while it rolls."""

    serving: bool
    moved_at: float
    """When the uplink last took a message."""
    links: Mapping[int, tuple[LinkStatistics, ...]]
    downlinks: int
    """Tasks that wait for text or for the engine; for a moment also those of what is over."""


class Bridge:
    """See the module. `run` is the uplink and the home of the downlinks."""

    def __init__(
        self,
        session: Session,
        engine: Engine,
        info: EngineInfo,
        wires: Wiring,
        pass_by: Callable[[Outbound], bool],
        activity: Activity,
        settings: Settings,
        figures: UtteranceFigures,
    ) -> None:
        self.session = session
        self._desk = Desk(engine, info, settings, activity, figures, self.tell)
        self._admitted = wires.admitted
        self._outbound = wires.outbound
        self._pass_by = pass_by
        self._activity = activity
        self._voices: dict[int, Voice] = {}
        self._downlinks: trio.Nursery | None = None
        self._moved = Activity()
        self._quiet = trio.lowlevel.ParkingLot()
        self._speaking = trio.StrictFIFOLock()  # the events of one step are not mixed with others

    async def run(self) -> None:
        """Work until `admitted` ends; whatever ends it, no engine stream stays open."""
        with self._admitted.receive:
            try:
                async with trio.open_nursery() as self._downlinks:
                    await self._listen()
            finally:
                self._downlinks = None
                for voice in self._voices.values():
                    voice.abort()
                    self._desk.figures.ended["left"] += 1
                self._voices.clear()

    async def _listen(self) -> None:
        while True:
            try:
                message = await self._admitted.take()
            except trio.EndOfChannel:
                return
            self._moved.touch()
            if voice := self._active_voice:  # do not go on while the engine is too far behind
                await voice.wait_room()
            await self.tell(message)

    def pass_by(self, message: Inbound) -> bool:
        """The limiter's: act on a message, unless it would overtake something or finds no room.
        False: nothing was done, put it into `admitted`."""
        if not self._admitted.idle or not self._outbound.idle:
            return False
        if (voice := self._active_voice) and voice.full:
            return False
        for item in self._hear(message):
            if not self._pass_by(item):
                self._outbound.put_nowait(item)  # it was empty, and a step says little
        return True

    def statistics(self) -> BridgeStatistics:
        return BridgeStatistics(
            serving=self._downlinks is not None,
            moved_at=self._moved.last,
            links={key: voice.statistics() for key, voice in self._voices.items()},
            downlinks=len(self._downlinks.child_tasks) if self._downlinks is not None else 0,
        )

    def lives(self) -> dict[int, ChainStatistics]:
        """What became of each living utterance so far."""
        return {key: voice.life() for key, voice in self._voices.items()}

    def streams(self) -> list[EngineStream]:
        """The engine streams that it holds."""
        return [stream for voice in self._voices.values() for stream in voice.streams()]

    async def tell(self, *messages: Message) -> None:
        """Step the machine and do what it wants; returns when its events are on their way."""
        said = self._hear(*messages)
        if not said:
            return
        if len(said) == 1 and not self._speaking.locked():  # there is nothing to be mixed
            await self._say(said[0])
            return
        try:
            self._speaking.acquire_nowait()  # `acquire` gives the turn away even where it is free
        except trio.WouldBlock:
            await self._speaking.acquire()
        try:
            for item in said:
                await self._say(item)
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

    async def _say(self, item: Outbound) -> None:
        if not self._pass_by(item):
            await self._outbound.put(item)

    def _hear(self, *messages: Message) -> list[Outbound]:
        said: list[Outbound] = []
        for message in messages:
            said += self._step(message)
        if self.session.quiet:
            self._quiet.unpark_all()
        return said

    def _step(self, message: Message) -> list[Outbound]:
        said: list[Outbound] = []
        todo = deque(self.session.step(message))
        while todo:
            match todo.popleft():
                case effects.Open(key=key, label=label):
                    assert self._downlinks is not None  # noqa: S101 - a start comes through `run`
                    voice = self._voices[key] = Voice(key, label, self._desk, self._downlinks)
                    todo.extend(self._steps(voice.open()))
                case effects.Feed(key=key, audio=audio):
                    if living := self._voices.get(key):
                        todo.extend(self._steps(living.feed(audio)))
                case effects.Finish(key=key):
                    if living := self._voices.get(key):
                        todo.extend(self._steps(living.finish()))
                case effects.Abort(key=key):
                    if living := self._voices.pop(key, None):
                        living.abort()
                        if todo and isinstance(last := todo[0], effects.Emit):  # always
                            self._desk.figures.ended[_LAST[type(last.event)]] += 1
                case effects.Emit(event=event):
                    if isinstance(event, _TRANSCRIPTION):
                        self._activity.touch()
                    said.append(event)
                case effects.CloseConnection(close=close):
                    said.append(close)
        return said

    def _steps(self, heard: list[EngineSaid]) -> Iterator[effects.Effect]:
        for signal in heard:
            yield from self.session.step(signal)

    @property
    def _active_voice(self) -> Voice | None:
        active = self.session.active
        return self._voices.get(active.key) if active is not None else None
