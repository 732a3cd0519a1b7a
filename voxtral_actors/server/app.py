"""The server process: one nursery that owns the engine and the listener, and the way it stops.

The engine is outside, the listener inside: HTTP answers while the engine is still starting, and the
engine is there for as long as a connection may need it.

A signal starts the drain. The listener goes on accepting, so that probes see 503 and clients are
told to go elsewhere, until the last session has ended or the time for it is over; then everything
is cancelled. A second signal does that at once, and the exit status says so: 128 and its number.
One more signal (`draining`) starts a drain that has all the time it needs.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator

import attrs
import structlog
import trio

from voxtral_actors import groups, limits
from voxtral_actors.connection.drain import Drain
from voxtral_actors.engine import registry
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.server import collector, descriptors, draining, metrics, quart_app
from voxtral_actors.server.admission import Admission
from voxtral_actors.server.heartbeat import Heartbeat
from voxtral_actors.server.listener import Listener, open_listeners
from voxtral_actors.server.service import Service
from voxtral_actors.server.wire import WireOptions
from voxtral_actors.settings import Settings

log = structlog.get_logger(__name__)


class ListenError(OSError):
    """The address cannot be listened on; the message names it and says why."""


@attrs.frozen
class Running:
    """A server that accepts connections."""

    service: Service
    listener: Listener
    heartbeat: Heartbeat
    """Not running yet: it says something of a whole process, and not of virtual time."""
    host: str
    port: int
    stop: trio.Event
    """Set it to stop like a signal would."""

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}/ws"


async def run(
    settings: Settings,
    *,
    engine: EngineActor | None = None,
    task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `Running.stop` is set, then drain and return.

    `engine` replaces the one that the settings name.

    Raises:
        EngineSetupError: the engine cannot be loaded.
        ListenError: the address cannot be listened on.
    """
    engine = engine or EngineActor(registry.load(settings))
    sockets = await _listen(settings.host, settings.port)
    drain = Drain()
    service = Service(settings, engine, Admission(settings, engine, drain), drain)
    options = WireOptions(
        write_deadline_s=settings.write_deadline_s, max_message_bytes=settings.max_message_bytes
    )
    figures = metrics.process_registry()
    listener = Listener(quart_app.create(service, figures), options)
    heartbeat = Heartbeat()
    figures.register(metrics.ServiceCollector(service, listener, heartbeat))
    host, port = sockets[0].socket.getsockname()[:2]
    running = Running(service, listener, heartbeat, host, port, trio.Event())
    async with trio.open_nursery() as outer:
        outer.start_soon(engine.run)
        async with trio.open_nursery() as inner:
            await inner.start(listener.run, sockets)
            log.info("server.listening", url=running.url, engine=settings.engine)
            task_status.started(running)
            await running.stop.wait()
            await _drain(service)
            # The last Close frames are on their way: cutting now could reset them away.
            listener.stop_accepting()
            linger = min(limits.CLOSE_HANDSHAKE_S, settings.drain_timeout_s / 4)
            inner.cancel_scope.deadline = trio.current_time() + linger
        outer.cancel_scope.cancel(reason="the server stops")
    log.info("server.stopped")


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return await open_listeners(host, port)
    except OSError as error:
        why = error.strerror or error
        raise ListenError(f"cannot listen on {host}, port {port}: {why}") from error


async def _drain(service: Service) -> None:
    whole = service.settings.drain_timeout_s
    # What comes after the last session (cutting sockets, stopping the engine) needs time too.
    left = max(whole - limits.STOP_RESERVE_S, whole / 2)
    log.info("server.draining", connections=service.admission.open, seconds=left)
    service.drain.start(trio.current_time() + left)
    with trio.move_on_after(left) as scope:
        await service.admission.nobody()
    if scope.cancelled_caught:
        log.warning("server.drain_timeout", connections=service.admission.open)


def main(settings: Settings) -> int:
    """Run the server until it is told to stop; returns the exit status."""
    descriptors.allow(settings.max_connections)
    collector.look_seldom()
    status = 0
    try:
        status = trio.run(_until_signalled, settings)
    except* (registry.EngineSetupError, ListenError) as group:
        errors: list[Exception] = groups.leaves(group)
        for error in errors:
            print(f"voxtral-actors: {error}", file=sys.stderr)
        status = 1
    return status


async def _until_signalled(settings: Settings) -> int:
    """Serve until a signal; returns the exit status."""
    cut = _Cut()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, draining.SIGNAL) as signals:
        async with trio.open_nursery() as nursery:

            async def serve(*, task_status: trio.TaskStatus[Running]) -> None:
                await run(settings, task_status=task_status)
                nursery.cancel_scope.cancel(reason="the server has stopped")

            running = await nursery.start(serve)
            nursery.start_soon(running.heartbeat.run)
            nursery.start_soon(collector.forget_the_start, running.service.engine)
            nursery.start_soon(_obey, signals, running, nursery, cut)
    if not cut.signal:
        return 0
    name = signal.Signals(cut.signal).name
    log.warning("server.stopped", cut=cut.connections, signal=name)
    return 128 + cut.signal


@attrs.define
class _Cut:
    """The second signal, and how many sessions it cut off."""

    signal: int = 0
    connections: int = 0


async def _obey(
    signals: AsyncIterator[int], running: Running, nursery: trio.Nursery, cut: _Cut
) -> None:
    """First signal: drain. Second: stop at once. The patient one counts for neither."""
    stopping = False
    async for number in signals:
        log.info("server.signal", signal=signal.Signals(number).name)
        if number == draining.SIGNAL:
            if not running.service.drain.started:
                nursery.start_soon(_drain_patiently, running)
        elif stopping:
            cut.signal, cut.connections = number, running.service.admission.open
            nursery.cancel_scope.cancel(reason="a second signal")
            return
        else:
            stopping = True
            running.stop.set()


async def _drain_patiently(running: Running) -> None:
    """Stop when the last session has ended by itself, or the other signal comes."""
    log.info("server.draining", connections=running.service.admission.open, seconds=None)
    running.service.drain.start()
    await running.service.admission.nobody()
    running.stop.set()
