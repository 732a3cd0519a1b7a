"""The guarded accept loop: whatever one connection does, the others and the server go on.

The listener owns the set of open wires. A connection counts as unadmitted until the app says that
it knows the peer (`Wire.admit`); past `max_unadmitted` of those the oldest is cut, so a flood of
half handshakes pushes out itself and not the next client. Nothing that a connection raises passes
`serve_stream`: it is logged, counted and the socket closed.

Stopping has two phases: `stop_accepting` closes the listening sockets and leaves what is open
alone, `run` returns by itself when the last connection has ended; cancelling `run` cuts the rest at
once, the ones stuck in a write included.
"""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

import attrs
import structlog
import trio

from voxtral_actors import limits
from voxtral_actors.server.descriptors import PatientListener
from voxtral_actors.server.direct_stream import DirectStream
from voxtral_actors.server.refusals import Refusals
from voxtral_actors.server.wire import (
    Address,
    ASGIApp,
    Ending,
    Failures,
    Wire,
    WireOptions,
)

log = structlog.get_logger(__name__)


@attrs.frozen
class ListenerStatistics:
    """What `/metrics` and the tests read."""

    open: int
    ending: int
    """Open ones that have been cut and are being cleared away."""
    admitted: int
    unadmitted: int
    accepted: int
    """Since the start; so are the next two."""
    ended: Mapping[str, int]
    """How connections ended, by `Ending`."""
    failures: int
    """Exceptions of the app or the protocol stack that stopped at their own connection."""
    out_of_descriptors: int
    """Attempts to accept that failed for want of one."""


class Listener:
    """Accepts connections and serves `app` on each; one `run` per object."""

    def __init__(self, app: ASGIApp, options: WireOptions) -> None:
        self._app = app
        self._options = options
        self._wires: set[Wire] = set()
        self._unadmitted: dict[Wire, None] = {}  # in the order of their arrival
        self._accepted = 0
        self._ended: Counter[str] = Counter()
        self._failures = 0
        self._refusals = Refusals()
        self._out_of_descriptors = 0
        self._departures = trio.CapacityLimiter(limits.DEPARTURES_AT_ONCE)
        self._accepting = trio.CancelScope()
        self._emptied = trio.Event()

    async def run(
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.HalfCloseableStream]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept on `listeners`, which are closed in the end, until stopped; see the module."""
        async with trio.open_nursery() as connections:
            try:
                with self._accepting:
                    task_status.started()
                    patient = [PatientListener(each, self._out_of_room) for each in listeners]
                    await trio.serve_listeners(
                        self.serve_stream, patient, handler_nursery=connections
                    )
                while self._wires:
                    self._emptied = trio.Event()
                    await self._emptied.wait()
            finally:
                for wire in list(self._wires):
                    wire.abort(Ending.SERVER_STOPPED)

    def stop_accepting(self) -> None:
        """Close the listening sockets; open connections live on."""
        self._accepting.cancel(reason="stop accepting")

    async def serve_stream(
        self, stream: trio.abc.HalfCloseableStream, peer: Address = None
    ) -> None:
        """Serve one connection to its end; a simulation hands its memory streams in here."""
        wire = Wire(
            DirectStream(stream) if isinstance(stream, trio.SocketStream) else stream,
            self._options,
            self._departures,
            peer=peer,
            on_admit=self._on_admit,
            on_failure=self._on_failure,
        )
        self._accepted += 1
        self._wires.add(wire)
        self._unadmitted[wire] = None
        if len(self._unadmitted) > self._options.max_unadmitted:
            self._push_out()
        try:
            await wire.serve(self._app)
        except* Exception as failures:  # containing it is this module's purpose
            wire.note(Ending.FAILED)
            self._on_failure(wire, failures)
        finally:
            self._forget(wire)

    def statistics(self) -> ListenerStatistics:
        admitted = sum(wire.admitted for wire in self._wires)
        return ListenerStatistics(
            open=len(self._wires),
            ending=sum(wire.over for wire in self._wires),
            admitted=admitted,
            unadmitted=len(self._wires) - admitted,
            accepted=self._accepted,
            ended=dict(self._ended),
            failures=self._failures,
            out_of_descriptors=self._out_of_descriptors,
        )

    def _out_of_room(self) -> None:
        """Somebody waits and the process cannot accept: no descriptor is left."""
        self._out_of_descriptors += 1
        oldest = next(iter(self._unadmitted), None)
        grace = trio.current_time() - limits.HANDSHAKE_GRACE_S
        if oldest is not None and oldest.opened_at < grace:
            self._push_out()

    def _push_out(self) -> None:
        oldest = next(iter(self._unadmitted))
        del self._unadmitted[oldest]
        oldest.abort(Ending.PUSHED_OUT)

    def _on_admit(self, wire: Wire) -> None:
        self._unadmitted.pop(wire, None)

    def _on_failure(self, wire: Wire, failures: Failures) -> None:
        self._failures += 1
        log.error("wire.failed", **attrs.asdict(wire.statistics()), exc_info=failures)

    def _forget(self, wire: Wire) -> None:
        self._wires.discard(wire)
        self._unadmitted.pop(wire, None)
        self._ended[wire.ending or Ending.SERVER_STOPPED] += 1
        tell = log.info if wire.admitted and wire.fault else log.debug
        tell("wire.ended", **attrs.asdict(wire.statistics()))
        if not wire.admitted and (reason := wire.refused or wire.fault):
            self._refusals.tell(reason, wire.statistics().peer)
        if not self._wires:
            self._emptied.set()


async def serve(
    app: ASGIApp,
    listeners: Sequence[trio.abc.Listener[trio.abc.HalfCloseableStream]],
    options: WireOptions,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `listeners` until cancelled."""
    await Listener(app, options).run(listeners, task_status=task_status)


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listening TCP sockets for every address that `host` has."""
    listeners = await trio.open_tcp_listeners(port, host=host, backlog=limits.LISTEN_BACKLOG)
    if sys.platform == "linux":
        # Accepted sockets inherit it: what the peer does not acknowledge in the time in which it
        # must answer a ping is given up by the kernel too, also after we have closed the socket.
        timeout_ms = int(limits.PEER_SILENCE_S * 1000)
        for listener in listeners:
            listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
    return listeners
