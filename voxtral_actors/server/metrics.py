"""`/metrics`: Prometheus figures, read from the `statistics()` of the live objects at each scrape.

Nothing is counted here: every figure has one owner, and tests read the same objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from voxtral_actors.connection.figures import UtteranceFigures
from voxtral_actors.server.heartbeat import BUCKETS, Heartbeat
from voxtral_actors.server.listener import Listener
from voxtral_actors.server.service import Service

PREFIX = "voxtral_"


class ServiceCollector(Collector):
    """The figures of one server."""

    def __init__(self, service: Service, listener: Listener, heartbeat: Heartbeat) -> None:
        self._service = service
        self._listener = listener
        self._heartbeat = heartbeat

    def collect(self) -> Iterable[Metric]:
        service, admission = self._service, self._service.admission
        engine, sockets = service.engine.statistics(), self._listener.statistics()
        yield _gauge("ready", "1 if new sessions are taken.", service.status == "ready")
        yield _gauge("draining", "1 from the signal to stop on.", service.drain.started)
        yield _gauge("connections_open", "Admitted connections.", admission.open)
        yield _gauge(
            "connections_limit", "MAX_CONCURRENT_CONNECTIONS.", service.settings.max_connections
        )
        yield _counter("connections", "Admitted connections so far.", admission.admitted)
        refused = "Connections refused, by reason."
        yield _by("connections_refused", refused, "reason", admission.refused)
        yield _labelled(
            "connections_ended",
            "Admitted connections that ended, by class and reason.",
            ["kind", "reason"],
            service.outcomes,
        )
        yield _gauge("sockets_open", "Open sockets, HTTP ones too.", sockets.open)
        yield _gauge("sockets_unadmitted", "Open sockets without a session.", sockets.unadmitted)
        yield _counter("sockets_failures", "Exceptions kept to a socket.", sockets.failures)
        yield _counter(
            "sockets_out_of_descriptors",
            "Attempts to accept without a file descriptor left.",
            sockets.out_of_descriptors,
        )
        yield _by("sockets_ended", "Sockets that ended, by reason.", "reason", sockets.ended)
        yield _gauge("engine_ready", "1 if the engine is ready.", engine.ready)
        yield _gauge("engine_slots", "Streams that the engine takes.", engine.slots)
        yield _gauge("engine_slots_taken", "Streams that the engine holds.", engine.slots_taken)
        yield _counter("engine_streams", "Streams opened.", engine.streams_opened)
        yield _counter("engine_streams_refused", "Opens without a slot.", engine.streams_refused)
        yield _gauge("engine_slots_rolling", "Spare slots taken by rolls.", engine.slots_rolling)
        yield _counter("rolls_refused", "Rolls without a spare slot.", engine.rolls_refused)
        yield _counter("engine_events_dropped", "Events of dead streams.", engine.events_dropped)
        yield _counter("engine_starts", "Times the engine became ready.", engine.starts)
        yield _counter("engine_deaths", "Times the engine failed or died.", engine.deaths)
        for name, value in service.engine.figures().items():
            make = _counter if name.endswith("_total") else _gauge
            yield make(f"engine_{name}", "Told by the engine itself, for this life.", value)
        yield from _utterances(service.utterances)
        loop = self._heartbeat.statistics()
        yield HistogramMetricFamily(
            PREFIX + "loop_lag_seconds",
            "How late the event loop is, looked at twenty times a second.",
            [
                (str(bound).replace("inf", "+Inf"), count)
                for bound, count in zip(BUCKETS, accumulate(loop.lags), strict=True)
            ],
            loop.lag_sum_s,
        )
        yield _counter(
            "loop_long_passes",
            "Times that the loop was over 50 ms late.",
            loop.long_passes,
        )
        yield _gauge("tasks", "Tasks of trio.", loop.tasks)
        yield _gauge("memory_blocks", "Pieces of memory of Python's objects.", loop.blocks)


def _utterances(told: UtteranceFigures) -> Iterable[Metric]:
    yield _by(
        "utterances_ended", "Utterances that ended, by what they came to.", "outcome", told.ended
    )
    yield _by("segments", "Streams that another one followed, by why.", "reason", told.segments)
    yield _gauge("utterances_waiting", "Utterances that wait for a lost engine.", told.waiting)
    yield _counter("utterance_waits", "Waits for a lost engine.", told.waits)
    yield _by("replays", "Streams that heard audio again, by why.", "cause", told.replays)
    yield _counter("replayed_audio_seconds", "Audio that was heard again.", told.replayed_s)
    given_up = "Utterances that lost their stream for good, by why."
    yield _by("utterances_given_up", given_up, "why", told.given_up)
    held, forgotten = told.journals()
    yield _gauge("journal_seconds", "Audio that is kept to be heard again.", held)
    yield _counter("journal_forgotten_seconds", "Audio that could not be kept.", forgotten)


def process_registry() -> CollectorRegistry:
    """A registry with the process's own figures; one a server, so that two of them do not meet."""
    metrics = CollectorRegistry()
    ProcessCollector(registry=metrics)
    PlatformCollector(registry=metrics)
    GCCollector(registry=metrics)
    return metrics


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=float(value))


def _by(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    return _labelled(name, text, [label], {(key,): count for key, count in counts.items()})


def _labelled(name: str, text: str, labels: list[str], values: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for key, count in values.items():
        family.add_metric(list(key), count)
    return family
