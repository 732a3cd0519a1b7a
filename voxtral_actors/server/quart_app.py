"""The routes, and the transport that quart gives a connection. The only file that imports quart.

`/ws` refuses in words: a browser cannot read the HTTP status of a failed handshake, so a refused
client is accepted, told its error, and closed. It never counts as a session, and its socket stays
under the handshake deadline.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import structlog
import trio
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry
from quart import Response, request, websocket
from quart.typing import ResponseReturnValue
from quart_trio import QuartTrio

from voxtral_actors.connection import supervisor
from voxtral_actors.connection.supervisor import Outcome
from voxtral_actors.connection.transport import CLIENT_LEFT, SERVER_STOPPED, send
from voxtral_actors.connection.wiring import Queue
from voxtral_actors.limits import MAX_HTTP_BODY_BYTES, METRICS_AGE_S
from voxtral_actors.protocol.closing import Close, farewell
from voxtral_actors.protocol.codec import encode
from voxtral_actors.protocol.events import CONNECTION_REQUEST_ID
from voxtral_actors.server import page
from voxtral_actors.server.admission import SUBPROTOCOL, read_credentials
from voxtral_actors.server.debug import BadPageError, BusyError, Debug, Page
from voxtral_actors.server.invariants import Invariants
from voxtral_actors.server.service import Service
from voxtral_actors.server.wire import Wire, current_wire

log = structlog.get_logger(__name__)


class QuartTransport:
    """`connection.transport.Transport` over the WebSocket of the current task.

    It never raises `Disconnected`: quart-trio cancels the handler when the client is gone, and a
    send to nobody returns. Bound to the one WebSocket, not to quart's context variable. Messages
    go past quart, in both directions: see `websocket_stream.py`.
    """

    def __init__(self, wire: Wire) -> None:
        assert wire.websocket is not None  # noqa: S101 - quart serves one, so there is one
        self._wire = wire
        self._stream = wire.websocket
        self._inbox: Queue[str | bytes]
        self._websocket = websocket._get_current_object()  # type: ignore[attr-defined]

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Where `receive` may be called; begin before the WebSocket is accepted."""
        with self._stream.messages() as self._inbox:
            yield

    @property
    def departure(self) -> str:
        ending = self._wire.ending
        if (
            ending is None
        ):  # a client that leaves ends its wire first: this is a cancel from outside
            return SERVER_STOPPED
        return ending if ending.is_fault or ending == SERVER_STOPPED else CLIENT_LEFT

    async def receive(self) -> str | bytes:
        return await self._inbox.take()

    def handing(self, pass_by: Callable[[str | bytes], bool]) -> AbstractContextManager[None]:
        return self._stream.handing(pass_by)

    def write(self, text: str) -> bool:
        return self._stream.write(text)

    async def drain(self) -> None:
        await self._stream.drain()

    async def close(self, code: int, reason: str) -> None:
        await self._websocket.close(code, reason)


def create(service: Service, metrics: CollectorRegistry) -> QuartTrio:
    """The ASGI app of one server."""
    app = QuartTrio(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_HTTP_BODY_BYTES

    @app.get("/healthz")
    async def healthz() -> ResponseReturnValue:
        """The process answers: all that a liveness probe may ask."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> ResponseReturnValue:
        """New sessions are taken: the engine is ready and the server does not drain."""
        status = service.status
        return {"status": status}, 200 if status == "ready" else 503

    invariants = Invariants(service)
    metrics.register(invariants)
    scraping = trio.Lock()
    scrape = b""
    scraped_at = -math.inf

    @app.get("/metrics")
    async def prometheus() -> ResponseReturnValue:
        nonlocal scrape, scraped_at
        async with scraping:
            if trio.current_time() - scraped_at >= METRICS_AGE_S:
                await invariants.look()
                scrape, scraped_at = generate_latest(metrics), trio.current_time()
        return Response(scrape, content_type=CONTENT_TYPE_LATEST)

    debug = Debug(service)

    @app.get("/debug/actors")
    async def actors() -> ResponseReturnValue:
        """The live tree, for who has a key."""
        credentials = read_credentials(request.headers, request.args, ())
        if not service.admission.knows(credentials):
            return {"error": "a key of this server is needed"}, 401, {"WWW-Authenticate": "Bearer"}
        try:
            answer = await debug.actors(Page.parse(request.args))
        except BadPageError as error:
            return {"error": str(error)}, 400
        except BusyError as error:
            return {"error": str(error)}, 503, {"Retry-After": "1"}
        return answer, 200, {"Cache-Control": "no-store"}

    for path, asset in page.load().items():
        app.add_url_rule(path, path, partial(_send, asset))

    @app.websocket("/ws")
    async def ws() -> None:
        await _serve(service)

    return app


async def _send(asset: page.Asset) -> ResponseReturnValue:
    """A file of the page, or 304 to who has it already."""
    response = Response(asset.body, content_type=asset.content_type, headers=page.HEADERS)
    response.set_etag(asset.etag)
    return await response.make_conditional(request)


async def _serve(service: Service) -> None:
    wire = current_wire.get()
    credentials = read_credentials(
        websocket.headers, websocket.args, websocket.requested_subprotocols
    )
    chosen = SUBPROTOCOL if SUBPROTOCOL in websocket.requested_subprotocols else None
    number = uuid.uuid4()
    session_id = f"sess-{number.hex}"
    transport = QuartTransport(wire)
    with service.admission.admit(credentials) as verdict:
        if isinstance(verdict, Close):
            wire.refused = verdict.spec.slug
            await websocket.accept(subprotocol=chosen)
            await _refuse(transport, session_id, verdict)
            return
        with (
            service.roster.seat(session_id, wire) as seat,
            _recorded(service, session_id, transport, wire.statistics().peer) as outcomes,
            transport.receiving(),
        ):
            await websocket.accept(subprotocol=chosen)
            wire.admit()
            await supervisor.serve(
                transport,
                service.engine,
                verdict,
                service.settings,
                service.drain,
                session_id=session_id,
                created=int(time.time()),
                drain_share=number.int / 2**128,  # as random as the name
                figures=service.utterances,
                ended=outcomes.append,
                show=seat.show,
            )


@contextmanager
def _recorded(
    service: Service, session_id: str, transport: QuartTransport, peer: str
) -> Iterator[list[Outcome]]:
    """Count and log how an admitted connection ended, also one that left while it was let in."""
    started = time.monotonic()
    outcomes: list[Outcome] = []
    try:
        yield outcomes
    finally:
        outcome = outcomes[0] if outcomes else supervisor.departed(transport)
        service.outcomes[outcome.kind.value, outcome.reason] += 1
        log.info(
            "connection.ended",
            session_id=session_id,
            peer=peer,
            kind=outcome.kind.value,
            reason=outcome.reason,
            seconds=round(time.monotonic() - started, 3),
        )


async def _refuse(transport: QuartTransport, session_id: str, close: Close) -> None:
    await send(transport, encode(farewell(session_id, CONNECTION_REQUEST_ID, close)))
    await transport.close(close.spec.code, close.spec.slug)
