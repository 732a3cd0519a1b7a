"""One connection seen from outside, while it lives: for `/debug/actors`, the invariants and tests.

It owns nothing and changes nothing. What it tells is read from the `statistics()` of the actors and
channels at the moment of the question, and is never text, audio or a key. `statistics` costs about
as much as a message of the client does; `actors` walks through the frames of the tasks and costs a
few of them, so it is for a page of connections and not for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import trio

import voxtral_actors
from voxtral_actors.connection import wiring
from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.backlog import BacklogStatistics
from voxtral_actors.connection.bridge import Bridge, BridgeStatistics
from voxtral_actors.connection.limiter import Limiter, WindowStatistics
from voxtral_actors.connection.wiring import Queue, Wiring
from voxtral_actors.connection.writer import Writer
from voxtral_actors.engine.port import EngineStream
from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.protocol.session import Session
from voxtral_actors.utterance.chain import ChainStatistics

_HOME = str(Path(voxtral_actors.__file__).parent)
_PREFIX = f"{voxtral_actors.__name__}.connection."


@attrs.frozen
class QueueStatistics:
    """A channel between two actors, and when the one that reads it last took something."""

    waiting: int
    size: int
    moved_at: float

    @property
    def full(self) -> bool:
        return self.waiting >= self.size


@attrs.frozen
class UtteranceStatistics:
    """One living utterance. `opened_at` and `audio` are those of its newest engine stream, and None
    while it has no stream."""

    request_id: str
    state: str
    """`active` or `finalising`."""
    accepted_s: float
    opened_at: float | None
    audio: BacklogStatistics | None
    streams: int
    life: ChainStatistics


@attrs.frozen
class TreeStatistics:
    """A moment of one connection; times are on trio's clock."""

    state: str
    bad_messages: int
    active_at: float
    """When the client last said something, or text was last sent to it."""
    queues: dict[str, QueueStatistics]
    windows: dict[str, WindowStatistics]
    utterances: list[UtteranceStatistics]
    unserved: int
    """Living utterances without a voice at the engine, and voices without an utterance."""
    tasks: int

    @property
    def waiting_s(self) -> float:
        """Audio that waits for the engine: the lag of the utterance that has most of it."""
        waiting = (u.audio.waiting_s for u in self.utterances if u.audio is not None)
        return max(waiting, default=0.0)

    @property
    def queued(self) -> int:
        return sum(queue.waiting for queue in self.queues.values())


@attrs.frozen
class ActorStatistics:
    """One task of the tree, and where it is: the innermost function of ours, and what it awaits."""

    name: str
    waiting: str


@attrs.define(eq=False)
class Tree:
    """The parts of one connection; `nursery` is there from the moment that its actors are."""

    session: Session
    wires: Wiring
    activity: Activity
    limiter: Limiter
    bridge: Bridge
    writer: Writer
    nursery: trio.Nursery | None = None

    def statistics(self) -> TreeStatistics:
        bridge = self.bridge.statistics()
        utterances = list(self._utterances(bridge))
        return TreeStatistics(
            state=self.session.state.name.lower(),
            bad_messages=self.session.bad_messages,
            active_at=self.activity.last,
            queues=self.queues(bridge),
            windows=self.limiter.statistics(),
            utterances=utterances,
            unserved=self.unserved(bridge),
            tasks=self.tasks(bridge),
        )

    def queues(self, bridge: BridgeStatistics) -> dict[str, QueueStatistics]:
        """Each channel by its name."""
        wires = self.wires
        # Who waits for room in a backlog gets on when the engine does.
        behind = [link.audio.behind_since for links in bridge.links.values() for link in links]
        bridge_at = max([bridge.moved_at, *(at for at in behind if at < math.inf)])
        queues: dict[str, tuple[Queue[Any], float]] = {
            "inbound": (wires.inbound, self.limiter.moved.last),
            "admitted": (wires.admitted, bridge_at),
            "outbound": (wires.outbound, self.writer.moved.last),
        }
        found = {}
        for name, (queue, moved_at) in queues.items():
            figures = queue.receive.statistics()
            size = int(figures.max_buffer_size)
            found[name] = QueueStatistics(figures.current_buffer_used, size, moved_at)
        return found

    def tasks(self, bridge: BridgeStatistics) -> int:
        """Tasks of the tree below the connection's own."""
        own = len(self.nursery.child_tasks) if self.nursery is not None else 0
        return own + bridge.downlinks

    def unserved(self, bridge: BridgeStatistics) -> int:
        """0 at every moment at which another task can look; see `bridge`."""
        session = self.session
        living = set(session.tails) | ({session.active.key} if session.active else set())
        return len(living ^ bridge.links.keys()) if bridge.serving else 0

    def streams(self) -> list[EngineStream]:
        """The engine streams that the connection holds."""
        return self.bridge.streams()

    def open_ends(self) -> int:
        """Open ends of its channels: six at most while it lives, none afterwards."""
        return self.wires.open_ends()

    def actors(self) -> list[ActorStatistics]:
        """Every task of the tree."""
        if self.nursery is None:
            return []
        return [ActorStatistics(_name(task), _waiting(task)) for task in _tasks(self.nursery)]

    def _utterances(self, bridge: BridgeStatistics) -> Iterator[UtteranceStatistics]:
        session = self.session
        lives = self.bridge.lives()
        living = [("finalising", tail) for tail in session.tails.values()]
        if session.active is not None:
            living.append(("active", session.active))
        for state, utterance in living:
            links = bridge.links.get(utterance.key, ())
            link = links[-1] if links else None
            if (life := lives.get(utterance.key)) is None:
                continue  # `unserved` tells of it
            yield UtteranceStatistics(
                request_id=utterance.request_id,
                state=state,
                accepted_s=utterance.samples / SAMPLE_RATE,
                opened_at=link.opened_at if link is not None else None,
                audio=link.audio if link is not None else None,
                streams=len(links),
                life=life,
            )


def _tasks(nursery: trio.Nursery) -> Iterator[trio.lowlevel.Task]:
    for task in nursery.child_tasks:
        yield task
        for inner in task.child_nurseries:
            yield from _tasks(inner)


def _name(task: trio.lowlevel.Task) -> str:
    """`reader`, `idle`, `voice.downlink`: the actor by its module, and a task of it by both."""
    first, *rest = task.name.removeprefix(_PREFIX).split(".")
    return first if not rest or rest[-1] == "run" else f"{first}.{rest[-1].lstrip('_')}"


def _waiting(task: trio.lowlevel.Task) -> str:
    """`idle.run: sleep_until`, `Limiter.run: Queue.take`; just the first half if it waits for
    nothing."""
    ours = theirs = ""
    for frame, _ in task.iter_await_frames():
        code = frame.f_code
        if code.co_filename.startswith(_HOME) and code.co_filename != wiring.__file__:
            of_class = "." in code.co_qualname
            place = "" if of_class else f"{Path(code.co_filename).stem}."
            ours, theirs = place + code.co_qualname, ""
        elif not theirs:
            theirs = code.co_qualname
    return f"{ours}: {theirs}" if theirs else ours
