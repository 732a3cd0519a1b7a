"""`/debug/actors`: the live tree of the process as JSON, the connections in most trouble first.

Who may ask is who may open a session. The answer has ids, addresses, states and figures, and never
text, audio or a key. It is a page, so its size is bounded however many connections there are; all
of them are looked at to sort them, in portions with a turn for everybody else after each. One
question is answered at a time, and the next one waits (`duty`). So who asks all the time mostly
slows down who asks.

Times are seconds, audio is seconds of audio, queues are messages.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from heapq import nlargest
from pathlib import Path
from typing import Any

import attrs
import trio

from voxtral_actors import limits
from voxtral_actors.connection.backlog import BacklogStatistics
from voxtral_actors.connection.tree import QueueStatistics, TreeStatistics, UtteranceStatistics
from voxtral_actors.server.duty import Duty
from voxtral_actors.server.invariants import stuck
from voxtral_actors.server.roster import Seat
from voxtral_actors.server.service import Service

_FILES = Path("/proc/self/fd")


class BusyError(Exception):
    """Too many ask at the same time."""


class BadPageError(ValueError):
    """The page that was asked for is none; the message says what is allowed."""


@attrs.frozen
class Page:
    """Which connections to show, counted from the one in most trouble."""

    limit: int = limits.DEBUG_PAGE
    offset: int = 0

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Page:
        """Read `limit` and `offset` from a query.

        Raises:
            BadPageError: one of them is no number that is allowed.
        """
        limit = _whole(query, "limit", limits.DEBUG_PAGE, limits.DEBUG_PAGE_MAX)
        return cls(limit, _whole(query, "offset", 0, limits.DEBUG_OFFSET_MAX))


class Debug:
    """Answers for one server."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._one_at_a_time = trio.Lock()
        self._duty = Duty()

    async def actors(self, page: Page) -> dict[str, Any]:
        """The whole answer.

        Raises:
            BusyError: it would take too long until this question's turn.
        """
        answer: dict[str, Any] = {}
        with trio.move_on_after(limits.DUTY_WAIT_S) as waiting:
            async with self._one_at_a_time:
                await trio.sleep_until(self._duty.due_at)
                waiting.deadline = math.inf
                answer = await self._answer(page)
        if not answer:
            raise BusyError("others ask all the time; try again later")
        return answer

    async def _answer(self, page: Page) -> dict[str, Any]:
        look = _Look(self._service)
        with self._duty.work():
            connections = await look.connections(page)
        open_files = await trio.to_thread.run_sync(_open_files)
        return {
            "status": self._service.status,
            "process": _process(look.longest_turn, open_files),
            "engine": _engine(self._service, look.waiting_s),
            "connections": {
                "open": self._service.admission.open,
                "limit": self._service.settings.max_connections,
                "worst_lag_s": _round(look.worst_lag_s),
                "offset": page.offset,
                "shown": connections,
            },
        }


class _Look:
    """One look at all connections, taken in turns."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.longest_turn = 0.0
        """The longest time from being ready to being run, of the turns that this look took."""
        self.waiting_s = 0.0
        self.worst_lag_s = 0.0

    async def connections(self, page: Page) -> list[dict[str, Any]]:
        ranked: list[tuple[tuple[float, ...], int, Seat]] = []
        await self._turn()
        for number, seat in enumerate(self._service.roster.seats(), 1):
            ranked.append((self._trouble(seat), number, seat))
            if number % limits.LOOK_AT_ONCE == 0:
                await self._turn()
        shown: list[dict[str, Any]] = []
        worst = nlargest(page.offset + page.limit, ranked)[page.offset :]
        for number, (_, _, seat) in enumerate(worst, 1):
            shown.append(_connection(seat, self._service))
            if number % limits.SHOW_AT_ONCE == 0:
                await self._turn()
        return shown

    async def _turn(self) -> None:
        ready = trio.current_time()
        await trio.lowlevel.checkpoint()
        self.longest_turn = max(self.longest_turn, trio.current_time() - ready)

    def _trouble(self, seat: Seat) -> tuple[float, ...]:
        """What to sort by: lag first, then what waits in the queues."""
        if seat.tree is None:
            return (0.0, 0)
        bridge = seat.tree.bridge.statistics()
        waiting = [link.audio.waiting_s for links in bridge.links.values() for link in links]
        self.waiting_s += sum(waiting)
        lag = max(waiting, default=0.0)
        self.worst_lag_s = max(self.worst_lag_s, lag)
        return (_round(lag), sum(queue.waiting for queue in seat.tree.queues(bridge).values()))


def _connection(seat: Seat, service: Service) -> dict[str, Any]:
    wire = seat.wire.statistics()
    head = {
        "id": seat.session_id,
        "peer": wire.peer,
        "age_s": _round(wire.age_s),
        "ending": wire.ending,
        "bytes_in": wire.bytes_in,
        "bytes_out": wire.bytes_out,
    }
    if seat.tree is None:
        return {**head, "state": "opening"}
    now, tree = trio.current_time(), seat.tree
    figures: TreeStatistics = tree.statistics()
    return {
        **head,
        "state": figures.state,
        "idle_s": _round(now - figures.active_at),
        "lag_s": _round(figures.waiting_s),
        "bad_messages": figures.bad_messages,
        "stuck": stuck(tree, service.settings),
        "queues": {name: _queue(queue, now) for name, queue in figures.queues.items()},
        "windows": {name: attrs.asdict(window) for name, window in figures.windows.items()},
        "utterances": [_utterance(utterance, now) for utterance in figures.utterances],
        "actors": [attrs.asdict(actor) for actor in tree.actors()],
    }


def _queue(queue: QueueStatistics, now: float) -> dict[str, Any]:
    still = _round(now - queue.moved_at)
    return {"waiting": queue.waiting, "size": queue.size, "still_s": still}


def _utterance(utterance: UtteranceStatistics, now: float) -> dict[str, Any]:
    audio = utterance.audio or BacklogStatistics(0.0, 0.0, now)
    age = None if utterance.opened_at is None else _round(now - utterance.opened_at)
    life = utterance.life
    return {
        "request_id": utterance.request_id,
        "state": utterance.state,
        "age_s": age,
        "accepted_s": _round(utterance.accepted_s),
        "forwarded_s": _round(audio.fed_s),
        "used_s": _round(audio.used_s),
        "behind_s": _round(max(0.0, now - audio.behind_since)),
        "streams": utterance.streams,
        "rolls": {reason.value: count for reason, count in life.rolls.items() if count},
        "replays": life.replays,
        "kept_s": _round(life.journal.held / limits.SAMPLE_RATE),
    }


def _engine(service: Service, waiting_s: float) -> dict[str, Any]:
    engine, info = service.engine.statistics(), service.engine.info
    return {
        "state": "ready" if engine.ready else "starting",
        "name": info.name if info else service.settings.engine,
        "model": info.model if info else None,
        "generation": engine.starts,
        "slots": engine.slots,
        "slots_taken": engine.slots_taken,
        "slots_leaving": engine.slots_leaving,
        "streams_opened": engine.streams_opened,
        "streams_refused": engine.streams_refused,
        "slots_rolling": engine.slots_rolling,
        "rolls_refused": engine.rolls_refused,
        "events_dropped": engine.events_dropped,
        "deaths": engine.deaths,
        "backlog_s": _round(waiting_s),
        "inside": dict(service.engine.inside()),
        "figures": dict(service.engine.figures()),
    }


def _process(longest_turn: float, open_files: int | None) -> dict[str, Any]:
    return {
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "threads": threading.active_count(),
        "open_files": open_files,
        "loop_lag_s": _round(longest_turn, 6),
    }


def _open_files() -> int | None:
    """In a thread: the kernel takes its time with thousands of them."""
    return sum(1 for _ in _FILES.iterdir()) if _FILES.exists() else None


def _round(seconds: float, digits: int = 3) -> float:
    return round(seconds, digits)


def _whole(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(most)) or int(text) > most:
        raise BadPageError(f"{name} is a whole number from 0 to {most}")
    return int(text)
