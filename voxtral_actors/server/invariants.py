"""What must hold at every moment, looked at with each scrape of `/metrics`.

Each of these is counted by two parties, or bounded by a watchdog elsewhere; where they disagree,
something leaks or a watchdog has failed, and nothing else would say so before memory, slots or
tokens run out. A violation is a figure above 0 and one line of the log, repeated while it lasts no
more often than every `limits.INVARIANT_LOG_S`.

What belongs together is read in one step, for it changes at the next. What concerns one connection
alone is read in portions, with a turn for everybody else after each.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import structlog
import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from voxtral_actors import limits
from voxtral_actors.connection.tree import Tree
from voxtral_actors.engine.stream import ActorStream
from voxtral_actors.server.duty import Duty
from voxtral_actors.server.metrics import PREFIX
from voxtral_actors.server.roster import Seat
from voxtral_actors.server.service import Service
from voxtral_actors.settings import Settings

log = structlog.get_logger(__name__)

ENDS = "leaked_channel_ends"

CHECKS: Final = {
    "leaked_streams": "Engine streams that hold a slot and that no connection holds.",
    "unknown_streams": "Open streams of connections that the engine actor does not know.",
    "overdue_releases": "Slots of streams that are over, held longer than the engine may.",
    "stray_tokens": "Difference between connection tokens taken and connections that live.",
    "undead_connections": "Connections that live on though their socket is gone.",
    "excess_tasks": "Tasks of connections beyond those that a connection can have.",
    "stuck_actors": "Actors that have not moved for longer than they may, with a full queue.",
    "unserved_utterances": "Utterances without an engine stream, and streams without one of those.",
}
"""Gauges by name, counted in what the name ends in; all are 0."""


class Invariants(Collector):
    """The checks of one server. `look` is called before a scrape, which gives what it found."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._found: dict[str, int] = dict.fromkeys(CHECKS, 0)
        self._ends = 0
        self._over_since: dict[Seat, float] = {}
        self._logged: dict[str, float] = {}
        self._duty = Duty()

    async def look(self) -> None:
        """Check everything anew, unless that would take up too much of the loop's time."""
        if self._duty.due:
            with self._duty.work():
                await self._look()

    async def _look(self) -> None:
        found = dict.fromkeys(CHECKS, 0)
        where: defaultdict[str, list[str]] = defaultdict(list)
        self._look_at_counts(found)
        seats = self._service.roster.seats()
        self._over_since = {
            seat: self._over_since.get(seat, trio.current_time())
            for seat in seats
            if seat.wire.over
        }
        for number, seat in enumerate(seats, 1):
            for name, count in self._look_at(seat).items():
                found[name] += count
                where[name].append(seat.session_id)
            if number % limits.LOOK_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        self._found = found
        for name, count in found.items():
            self._tell(name, count, where[name])
        ends = self._service.roster.leaked_ends
        self._tell(ENDS, ends - self._ends, [])
        self._ends = ends

    def collect(self) -> Iterable[Metric]:
        for name, text in CHECKS.items():
            yield GaugeMetricFamily(f"{PREFIX}invariant_{name}", text, value=self._found[name])
        text = "Channel ends that were open when their connection had ended."
        yield CounterMetricFamily(f"{PREFIX}invariant_{ENDS}", text, value=self._ends)

    def _look_at_counts(self, found: dict[str, int]) -> None:
        """The counts that two parties keep; nothing may be awaited in here."""
        service = self._service
        seats = service.roster.seats()
        found["stray_tokens"] = abs(service.admission.open - len(seats))
        held = {
            stream
            for seat in seats
            if seat.tree is not None
            for stream in seat.tree.streams()
            if isinstance(stream, ActorStream) and not stream.over
        }
        known = {stream for stream in service.engine.streams() if not stream.over}
        found["leaked_streams"] = len(known - held)
        found["unknown_streams"] = len(held - known)
        engine = service.engine.statistics()
        if engine.oldest_leaving_s > limits.ENGINE_RELEASE_S + limits.INVARIANT_SLACK_S:
            found["overdue_releases"] = engine.slots_leaving

    def _look_at(self, seat: Seat) -> dict[str, int]:
        """What is wrong with one connection."""
        counts: dict[str, int] = {}
        over_since = self._over_since.get(seat, math.inf)
        if trio.current_time() - over_since > limits.LAST_WORDS_S + limits.INVARIANT_SLACK_S:
            counts["undead_connections"] = 1
        if seat.tree is not None:
            bridge = seat.tree.bridge.statistics()
            counts["excess_tasks"] = max(0, seat.tree.tasks(bridge) - limits.CONNECTION_TASKS)
            counts["unserved_utterances"] = seat.tree.unserved(bridge)
            counts["stuck_actors"] = len(stuck(seat.tree, self._service.settings))
        return {name: count for name, count in counts.items() if count}

    def _tell(self, name: str, count: int, where: list[str]) -> None:
        now = trio.current_time()
        if count and now - self._logged.get(name, -math.inf) >= limits.INVARIANT_LOG_S:
            self._logged[name] = now
            log.error(
                "invariant.violated",
                invariant=name,
                count=count,
                connections=where[: limits.INVARIANT_LOG_IDS],
            )


def stuck(tree: Tree, settings: Settings) -> list[str]:
    """The actors that stand though their queue is full and the next one is not.

    The writer has a deadline for each message. The bridge has the back-pressure timeout, where
    there is one, from the engine's last progress, and the time that a lost engine may be away; the
    limiter only passes on.
    """
    queues = tree.queues(tree.bridge.statistics())
    inbound, admitted, outbound = queues["inbound"], queues["admitted"], queues["outbound"]
    patience = (settings.backpressure_timeout_s or math.inf) + settings.replay_budget_s
    now = trio.current_time()
    waits = [
        ("limiter", inbound, admitted.full, max(inbound.moved_at, admitted.moved_at), 0.0),
        ("bridge", admitted, outbound.full, max(admitted.moved_at, outbound.moved_at), patience),
        ("writer", outbound, False, outbound.moved_at, settings.write_deadline_s),
    ]
    return [
        name
        for name, queue, may_wait, since, limit in waits
        if queue.full and not may_wait and now - since > limit + limits.INVARIANT_SLACK_S
    ]
