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
from contextlib import suppress

import attrs
import structlog
import trio

from voxtral_actors.connection import drain, duration, idle
from voxtral_actors.connection.activity import Activity
from voxtral_actors.connection.bridge import Bridge
from voxtral_actors.connection.drain import Drain
from voxtral_actors.connection.figures import UtteranceFigures
from voxtral_actors.connection.limiter import Limiter
from voxtral_actors.connection.reader import Reader
from voxtral_actors.connection.transport import CLIENT_LEFT, SERVER_STOPPED, Transport, send
from voxtral_actors.connection.tree import Tree
from voxtral_actors.connection.wiring import open_wiring
from voxtral_actors.connection.writer import Writer
from voxtral_actors.engine.port import Engine, EngineInfo
from voxtral_actors.groups import describe
from voxtral_actors.limits import LAST_WORDS_S, SAMPLE_RATE
from voxtral_actors.protocol.closing import Close, farewell
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
    """How a connection ended: `reason` is a slug, `close` the Close meant for the client if any."""

    kind: Kind
    reason: str
    close: Close | None = None


_KINDS = {
    Close.SLOW_CONSUMER: Kind.CLIENT_FAULT,
    Close.TOO_MANY_BAD: Kind.CLIENT_FAULT,
    Close.TOO_BIG: Kind.CLIENT_FAULT,
    Close.DRAINING: Kind.SHUTDOWN,
    Close.BUG: Kind.BUG,
}


async def serve(
    transport: Transport,
    engine: Engine,
    info: EngineInfo,
    settings: Settings,
    drain_wish: Drain,
    *,
    session_id: str,
    created: int,
    drain_share: float,
    figures: UtteranceFigures,
    ended: Callable[[Outcome], None],
    show: Callable[[Tree], object] = lambda _: None,
) -> None:
    """Serve one accepted connection to its end, and report to `ended` how that came about.

    `info` is what the engine said at admission, `created` the Unix time in seconds, `drain_share`
    a random number from 0 to 1 (see `drain`). When this is cancelled from outside, the tree is torn
    down and `Cancelled` goes on. In every case the engine streams are let go, and `ended` is called
    exactly once. `show` gets the tree, to be looked at.
    """
    wires = open_wiring()
    activity = Activity()
    session = Session(session_id, info.model, max_bad=settings.max_bad_messages)
    closes: list[Close] = []  # the first one is what the connection ended in
    writer = Writer(transport, wires.outbound, settings.write_deadline_s, closes.append)
    bridge = Bridge(session, engine, info, wires, writer.pass_by, activity, settings, figures)
    limiter = Limiter(settings, wires, bridge.pass_by)
    most = settings.max_message_bytes
    reader = Reader(transport, wires.inbound, activity, most, limiter.pass_by)
    tree = Tree(session, wires, activity, limiter, bridge, writer)
    show(tree)

    async def until_done(actor: Callable[[], Awaitable[None]]) -> None:
        await actor()
        nursery.cancel_scope.cancel(reason="the connection has ended")

    try:
        with wires.outbound.send, wires.outbound.receive:
            await wires.outbound.put(_session_created(session_id, created, info, settings))
            async with trio.open_nursery() as nursery:
                tree.nursery = nursery
                start = nursery.start_soon
                start(until_done, reader.run, name="reader")
                start(until_done, writer.run, name="writer")
                start(limiter.run)
                start(bridge.run)
                start(idle.run, bridge, activity, settings.idle_timeout_s)
                start(duration.run, bridge, settings.max_duration_s, settings.close_grace_s)
                start(drain.run, bridge, drain_wish, drain_share, settings.close_grace_s)
        await _last_words(transport, session, closes)
    except* Exception as group:  # a bug in an actor: this connection's end, nobody else's
        log.exception("connection.bug", session_id=session_id, error=describe(group))
        closes[:] = [Close.BUG]
        await _last_words(transport, session, closes)
    finally:
        ended(_outcome(closes, transport))


def _outcome(closes: list[Close], transport: Transport) -> Outcome:
    if closes:
        return Outcome(_KINDS.get(closes[0], Kind.NORMAL), closes[0].spec.slug, closes[0])
    return departed(transport)


def departed(transport: Transport) -> Outcome:
    """The outcome of a connection whose socket is gone without a Close of ours."""
    departure = transport.departure
    kinds = {CLIENT_LEFT: Kind.NORMAL, SERVER_STOPPED: Kind.SHUTDOWN}
    return Outcome(kinds.get(departure, Kind.CLIENT_FAULT), departure)


async def _last_words(transport: Transport, session: Session, closes: list[Close]) -> None:
    """Say what the writer could not say any more. What failed before may fail again: so be it."""
    if not closes or closes[0] not in (Close.BUG, Close.SLOW_CONSUMER):
        return
    spec = closes[0].spec
    with trio.move_on_after(LAST_WORDS_S, shield=True):
        if spec.error:
            with suppress(Exception):  # the socket, or the transport, that broke the connection
                error = farewell(session.session_id, CONNECTION_REQUEST_ID, closes[0])
                await send(transport, encode(error))
        with suppress(Exception):  # the socket, or the transport, again
            await transport.close(spec.code, spec.slug)


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
