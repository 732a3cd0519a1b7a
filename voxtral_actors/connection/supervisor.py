"""The supervisor: one connection as one nursery, from the first event to the last.

The tree lives until the reader or the writer is done, or any actor raises; whichever is first ends
all of it. What it ended in becomes an `Outcome`, and where the client can still be told and has not
been, the supervisor says the last words itself: shielded, and for `limits.LAST_WORDS_S` at most.

Outcomes fall into classes, and the class decides how loud the log is: a client that left or was
closed by rule is information, a bug is an exception with its traceback.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import attrs
import structlog
import trio

from voxtral_actors.connection import drain, duration, idle, limiter, reader, writer
from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.bridge import Bridge
from voxtral_actors.connection.drain import Drain
from voxtral_actors.connection.transport import Disconnected, Transport
from voxtral_actors.connection.wiring import open_wiring
from voxtral_actors.engine.port import Engine, EngineInfo
from voxtral_actors.groups import describe
from voxtral_actors.limits import LAST_WORDS_S, SAMPLE_RATE
from voxtral_actors.protocol.closing import Close, closing_error
from voxtral_actors.protocol.codec import encode
from voxtral_actors.protocol.events import CONNECTION_REQUEST_ID, SessionCreated
from voxtral_actors.protocol.session import Session
from voxtral_actors.settings import Settings

log = structlog.get_logger(__name__)


class Kind(enum.Enum):
    """The class of an outcome."""

    NORMAL = "normal"
    SHUTDOWN = "shutdown"
    CLIENT_FAULT = "client_fault"
    BUG = "bug"


@attrs.frozen
class Outcome:
    """How a connection ended; `reason` is a slug, `close` the Close that was sent, if one was."""

    kind: Kind
    reason: str
    close: Close | None = None


_CLIENT_FAULTS = {Close.SLOW_CONSUMER, Close.TOO_MANY_BAD, Close.TOO_BIG}
_End: TypeAlias = Close | Disconnected


async def serve(
    transport: Transport,
    engine: Engine,
    info: EngineInfo,
    settings: Settings,
    drain_wish: Drain,
    *,
    session_id: str,
    created: int,
) -> Outcome:
    """Serve one accepted connection to its end.

    `info` is what the engine said at admission, `created` the Unix time in seconds. When this is
    cancelled from outside, the tree is torn down and `Cancelled` goes on; engine streams are let go
    in every case.
    """
    wires = open_wiring()
    activity = Activity()
    session = Session(session_id, info.model, max_bad=settings.max_bad_messages)
    bridge = Bridge(session, engine, wires.outbound_send, activity, settings)
    ends: list[_End] = []

    async def until_done(actor: Callable[[], Awaitable[_End]]) -> None:
        ends.append(await actor())
        nursery.cancel_scope.cancel(reason="the connection has ended")

    with wires.outbound_send:
        wires.outbound_send.send_nowait(_session_created(session_id, created, info, settings))
        try:
            async with trio.open_nursery() as nursery:
                start = nursery.start_soon
                start(
                    until_done,
                    lambda: reader.run(
                        transport, wires.inbound_send, activity, settings.max_message_bytes
                    ),
                    name="reader",
                )
                start(
                    until_done,
                    lambda: writer.run(transport, wires.outbound_recv, settings.write_deadline_s),
                    name="writer",
                )
                start(limiter.run, wires.inbound_recv, wires.admitted_send, settings)
                start(bridge.run, wires.admitted_recv)
                start(idle.run, bridge, activity, settings.idle_timeout_s)
                start(duration.run, bridge, settings.max_duration_s, settings.close_grace_s)
                start(drain.run, bridge, drain_wish, settings.close_grace_s)
        except* Exception as group:  # a bug in an actor: this connection's end, nobody else's
            log.exception("connection.bug", session_id=session_id, error=describe(group))
            ends.insert(0, Close.BUG)
    outcome = _outcome(ends[0])
    await _last_words(transport, session, outcome)
    return outcome


def _outcome(end: _End) -> Outcome:
    if isinstance(end, Disconnected):
        return Outcome(Kind.NORMAL, end.reason)
    if end is Close.BUG:
        kind = Kind.BUG
    elif end in _CLIENT_FAULTS:
        kind = Kind.CLIENT_FAULT
    else:
        kind = Kind.SHUTDOWN if end is Close.DRAINING else Kind.NORMAL
    return Outcome(kind, end.spec.slug, end)


async def _last_words(transport: Transport, session: Session, outcome: Outcome) -> None:
    """Say what the writer could not say any more."""
    if outcome.close not in (Close.BUG, Close.SLOW_CONSUMER):
        return
    with trio.move_on_after(LAST_WORDS_S, shield=True):
        try:
            if outcome.close.spec.error:
                ids = session.session_id, CONNECTION_REQUEST_ID
                await transport.send(encode(closing_error(*ids, outcome.close)))
            await transport.close(outcome.close.spec.code, outcome.close.spec.slug)
        except Disconnected:
            pass


def _session_created(
    session_id: str, created: int, info: EngineInfo, settings: Settings
) -> SessionCreated:
    limits = {
        "max_message_bytes": settings.max_message_bytes,
        "max_messages_per_window": settings.max_messages_per_window,
        "message_window_seconds": settings.message_window_s,
        "max_cancels_per_window": settings.max_cancels_per_window,
        "cancel_window_seconds": settings.cancel_window_s,
        "max_audio_backlog_s": settings.max_audio_backlog_s,
        "max_bad_messages": settings.max_bad_messages,
        "idle_timeout_s": settings.idle_timeout_s,
        "max_connection_duration_s": settings.max_duration_s,
    }
    return SessionCreated(
        session_id=session_id,
        request_id=CONNECTION_REQUEST_ID,
        id=session_id,
        created=created,
        model=info.model,
        engine=info.name,
        sample_rate=SAMPLE_RATE,
        transcription_delay_ms=info.transcription_delay_ms,
        limits=limits,
        note=info.note,
    )
