"""One connection: hypercorn's HTTP/1.1 and WebSocket protocol classes driven over a guarded socket.

hypercorn parses and writes; this file decides what it gets to see and when the connection ends.
None of the classes used here is a public interface of hypercorn: its version is pinned, and a new
one is taken only when the hostile-bytes tests pass on it.

1. A request that hypercorn would trip over is answered 400 before it gets there
   (`request_check.py`); WebSocket frames have rules of their own (`websocket_stream.py`).
2. HTTP/1.1 only: neither h2c nor prior-knowledge HTTP/2 is taken up.
3. What the app raises is reported, answered (500, or 1011) and goes no further than here.

The app finds its own `Wire` in `current_wire`: it is set before the app's task is started.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import lru_cache
from http import HTTPStatus
from typing import Any, TypeAlias, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import events as stream_events
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr
from wsproto.handshake import WEBSOCKET_VERSION

from voxtral_actors.connection.wiring import pass_on
from voxtral_actors.server.guarded_stream import (
    Ending,
    GuardedStream,
    WireOptions,
    WireStatistics,
)
from voxtral_actors.server.request_check import is_upgrade, refusal
from voxtral_actors.server.websocket_stream import WebSocket

__all__ = ["ASGIApp", "Ending", "Wire", "WireOptions", "WireStatistics", "current_wire"]

ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
Failures: TypeAlias = BaseExceptionGroup[BaseException]
Address: TypeAlias = tuple[str, int] | None

current_wire: ContextVar[Wire] = ContextVar("current_wire")

APP_QUEUE_MESSAGES = 1
"""hypercorn -> app. quart-trio has a queue of ten messages of its own behind this one."""


class Wire(GuardedStream):
    """One accepted socket and the app that serves it."""

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        options: WireOptions,
        departures: trio.CapacityLimiter,
        *,
        peer: Address = None,
        on_admit: Callable[[Wire], None] = lambda _: None,
        on_failure: Callable[[Wire, Failures], None] = lambda _, __: None,
    ) -> None:
        super().__init__(stream, options, departures)
        self.peer, self.local = _addresses(stream, peer)
        self.refused: str | None = None  # why the app did not let the peer in, if it said so
        self.websocket: WebSocket | None = None
        self._on_admit = on_admit
        self.on_failure = on_failure

    def admit(self) -> None:
        super().admit()
        self._on_admit(self)

    async def ping(self) -> None:
        if self.websocket is not None:
            await self.websocket.ping()

    def statistics(self) -> WireStatistics:
        return WireStatistics(
            peer=f"{self.peer[0]}:{self.peer[1]}" if self.peer else "",
            age_s=trio.current_time() - self.opened_at,
            admitted=self.admitted,
            ending=self.ending,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )

    async def serve(self, app: ASGIApp) -> None:
        """Serve `app` on this socket until it is closed, by whichever side."""
        current_wire.set(self)

        async def body(nursery: trio.Nursery) -> None:
            protocol = _Protocol(self, app, nursery)

            async def handle(data: bytes) -> None:
                # Past the handshake hypercorn's HTTP layer would only hand it through.
                if self.websocket is None or not await self.websocket.take(data):
                    await protocol.handle(RawData(data))

            await self.read(handle)

        await self.run(body)

    async def on_event(self, event: Event) -> None:
        """What hypercorn wants done with the socket."""
        match event:
            case RawData(data=data):
                await self.send_all(data)
            case Closed():
                await self.close()
            case Updated(idle=idle):
                self.idle(idle=idle)
            case _:  # hypercorn has no other
                raise AssertionError(event)


class _Tasks:
    """hypercorn's task group: the app, in the connection's nursery."""

    def __init__(self, wire: Wire, nursery: trio.Nursery) -> None:
        self._wire = wire
        self._nursery = nursery

    async def spawn_app(
        self, app: ASGIApp, _config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        queue, inbox = trio.open_memory_channel[Any](APP_QUEUE_MESSAGES)
        life = trio.CancelScope()
        self._nursery.start_soon(self._run_app, life, app, scope, inbox, send)

        async def put(message: Any) -> None:
            try:
                if message["type"].endswith(".disconnect"):
                    queue.send_nowait(message)
                else:
                    await pass_on(queue, message)
            except trio.WouldBlock:  # an app that does not read must still hear of its end
                life.cancel(reason="disconnected")
            except trio.BrokenResourceError:
                pass  # the app has ended

        return put

    async def _run_app(
        self,
        life: trio.CancelScope,
        app: ASGIApp,
        scope: Any,
        inbox: trio.MemoryReceiveChannel[Any],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        with inbox, life:
            try:
                await app(scope, inbox.receive, send)
            except* Exception as failures:  # rule 3: an app's bug ends its own connection
                self._wire.on_failure(self._wire, failures)
        await send(None)


class _Protocol(H11Protocol):
    """HTTP/1.1 and nothing else, with requests checked before they are acted on."""

    def __init__(self, wire: Wire, app: ASGIApp, nursery: trio.Nursery) -> None:
        super().__init__(
            app,  # type: ignore[arg-type]  # only handed through, to `_Tasks.spawn_app`
            _config(wire.options),
            WorkerContext(None),
            _Tasks(wire, nursery),  # type: ignore[arg-type]  # all that H11Protocol uses of one
            ConnectionState({}),
            False,
            wire.peer,
            wire.local,
            wire.on_event,
        )
        self.wire = wire

    async def _check_protocol(self, event: h11.Request) -> None:
        """No upgrade to h2c, no prior-knowledge HTTP/2."""

    async def _create_stream(self, request: h11.Request) -> None:
        upgrade = is_upgrade(request)
        status = refusal(request, upgrade=upgrade)
        if status is not None:
            await self._send_error_response(status)
            await self.send(Closed())
            return
        rest = (self.config, self.context, self.task_group, self.ssl, self.client, self.server)
        if upgrade:
            self.stream = WebSocket(self.wire, self.app, *rest, self.stream_send, STREAM_ID)
            self.wire.websocket = self.stream
            self.connection = H11WSConnection(cast("h11.Connection", self.connection))
        else:
            self.stream = HTTPStream(self.app, *rest, self.stream_send, STREAM_ID)
        await self.stream.handle(
            stream_events.Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1

    async def _send_error_response(self, status_code: int) -> None:
        """Refuse what we, or h11, cannot read. A 426 says what is spoken here (RFC 6455 4.4)."""
        self.wire.note(Ending.BAD_REQUEST)
        fields = [(b"content-length", b"0"), *self.config.response_headers("h11")]
        if status_code == HTTPStatus.UPGRADE_REQUIRED:
            fields += [(b"connection", b"close, upgrade"), (b"upgrade", b"websocket")]
            fields += [(b"sec-websocket-version", WEBSOCKET_VERSION)]
        else:
            fields += [(b"connection", b"close")]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=fields))
        await self._send_h11_event(h11.EndOfMessage())


@lru_cache(maxsize=1)  # one listener has one; hypercorn hangs a logger on it at first use
def _config(options: WireOptions) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")  # else it adds a handler to stderr
    config.include_server_header = False
    config.websocket_max_message_size = options.max_message_bytes
    return config


def _addresses(stream: object, peer: Address) -> tuple[Address, Address]:
    """The two ends of the socket, if the stream has one and the peer is still there."""
    sock = getattr(stream, "socket", None)
    if sock is None:
        return peer, None
    local = None
    with contextlib.suppress(OSError):  # a peer that has reset the connection has no name any more
        local = parse_socket_addr(sock.family, sock.getsockname())
        peer = peer or parse_socket_addr(sock.family, sock.getpeername())
    return peer, local
