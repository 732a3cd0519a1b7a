"""One WebSocket to the server, as one task that never raises once the session is open.

`Link.run` hosts the socket's nursery: trio-websocket's own reader, our reader, the only writer, the
watch for a silent peer and the one who hangs up. Before `session.created` its errors go to whoever
started it. After it, the outcome is kept in `failure` and everybody who waits is woken: an error of
the background must not cancel the caller's code, and must not reach it inside an exception group.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, NoReturn

import trio
import trio_websocket
from wsproto.utilities import LocalProtocolError

from voxtral_actors.client import limits
from voxtral_actors.client.codec import BadEventError, Unknown, decode_event
from voxtral_actors.client.errors import (
    ClientError,
    ConnectFailed,
    ConnectionRefused,
    ServerClosed,
)
from voxtral_actors.client.outbox import Outbox
from voxtral_actors.client.stream import Address, CutShortError, WatchedStream
from voxtral_actors.groups import leaves
from voxtral_actors.limits import CLOSE_HANDSHAKE_S, PEER_SILENCE_S, PING_INTERVAL_S
from voxtral_actors.protocol.events import CONNECTION_REQUEST_ID, Error, Event, SessionCreated

Status = trio.TaskStatus[SessionCreated]


class _SilentError(Exception):
    """Nothing came from the server for longer than its pings are apart."""


class Link:
    """The socket of one session, and why it ended."""

    def __init__(self, address: Address, headers: list[tuple[bytes, bytes]]) -> None:
        self.outbox = Outbox(limits.OUTBOX_FRAMES)
        self.ended = trio.Event()
        self.failure: ClientError | None = None
        self.closing = False
        self.on_event: Callable[[Event], None] = lambda _: None
        self.on_end: Callable[[], None] = lambda: None
        self.unknown_events = 0
        self._address = address
        self._headers = headers
        self._admitted = False
        self._last_error: Error | None = None
        self._hang_up = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def shielded(self) -> bool:
        """Whether only `abort` cancels the link, and not what cancels the caller."""
        return self._scope.shield

    @shielded.setter
    def shielded(self, value: bool) -> None:
        self._scope.shield = value

    def abort(self) -> None:
        """End the link now, without a word to the server."""
        self._scope.cancel(reason="the session is over")

    async def hang_up(self) -> None:
        """Close in good order; returns when the socket is closed."""
        self.closing = True
        self._hang_up.set()
        await self.ended.wait()

    async def run(
        self, connect: Callable[[], Awaitable[trio.abc.Stream]], *, task_status: Status
    ) -> None:
        """Connect, report `session.created`, and carry frames until the connection ends.

        Raises:
            ConnectFailed, ConnectionRefused: there was no `session.created`.
        """
        try:
            stream = WatchedStream(await connect())
        except BaseException:  # cancelled as well: whoever waits for the end must not hang
            self.ended.set()
            raise
        failure: ClientError | None = None
        try:
            with self._scope:
                await self._carry(stream, task_status)
        except* Exception as group:
            failure = self._explain(group)
        finally:
            self._end(failure)
            await trio.aclose_forcefully(stream)
        if failure is not None and not self._admitted:
            raise failure

    def refusal(self, close_code: int) -> ConnectionRefused | None:
        """The refusal, if the server's last word before a session was an error."""
        error = self._last_error
        if error is None or self._admitted:
            return None
        return ConnectionRefused(error.code, error.message, close_code, _advice(error))

    # --- The tasks of the socket -------------------------------------------------------------

    async def _carry(self, stream: WatchedStream, task_status: Status) -> None:
        async with trio.open_nursery() as nursery:
            ws = await trio_websocket.wrap_client_stream(
                nursery,
                stream,  # type: ignore[arg-type]  # typed for sockets, works on any stream
                self._address.host_header,
                self._address.resource,
                extra_headers=self._headers,
                max_message_size=limits.MAX_MESSAGE_BYTES,
                receive_buffer_size=limits.RECEIVE_BYTES,
            )
            stream.upgraded = True
            nursery.start_soon(self._write, ws)
            nursery.start_soon(self._ping, ws)
            nursery.start_soon(self._watch, stream)
            nursery.start_soon(self._close_when_asked, ws, nursery.cancel_scope)
            await self._read(ws, task_status)

    async def _read(self, ws: trio_websocket.WebSocketConnection, task_status: Status) -> None:
        while True:
            try:
                message = await ws.get_message()
            except trio_websocket.ConnectionClosed:
                if self._hang_up.is_set():
                    await trio.sleep_forever()  # ours: the other task finishes the handshake
                raise
            event = decode_event(message)
            if isinstance(event, Unknown):
                self.unknown_events += 1
                continue
            if isinstance(event, SessionCreated) and not self._admitted:
                self._admitted = True
                task_status.started(event)
            elif isinstance(event, Error) and event.request_id == CONNECTION_REQUEST_ID:
                self._last_error = event
            self.on_event(event)

    async def _write(self, ws: trio_websocket.WebSocketConnection) -> None:
        while True:
            frame = await self.outbox.take()
            try:
                await ws.send_message(frame)
            except (trio_websocket.ConnectionClosed, LocalProtocolError):
                self.outbox.close()
                return  # the reader still has the server's last words to read

    async def _ping(self, ws: trio_websocket.WebSocketConnection) -> None:
        """Make the server say something, for servers that send no pings of their own."""
        while True:
            await trio.sleep(PING_INTERVAL_S)
            try:
                await ws.ping()
            except (trio_websocket.ConnectionClosed, LocalProtocolError):
                return

    async def _watch(self, stream: WatchedStream) -> NoReturn:
        # Each sleep ends when the deadline would pass, not at a tick.
        while (left := stream.heard_at + PEER_SILENCE_S - trio.current_time()) > 0:  # noqa: ASYNC110
            await trio.sleep(left)
        raise _SilentError

    async def _close_when_asked(
        self, ws: trio_websocket.WebSocketConnection, scope: trio.CancelScope
    ) -> None:
        await self._hang_up.wait()
        with trio.move_on_after(CLOSE_HANDSHAKE_S):
            await self.outbox.drained()  # a last `cancel` goes before the Close frame
            await ws.aclose()
        scope.cancel(reason="the session was ended")

    # --- How it ended ------------------------------------------------------------------------

    def _end(self, failure: ClientError | None) -> None:
        if not self.closing:
            self.failure = failure
        self.ended.set()
        self.outbox.close()
        self.on_end()

    def _explain(self, group: BaseExceptionGroup[Any]) -> ClientError:
        """One error for the caller. A bug in this package is chained to it, not hidden."""
        for leaf in leaves(group):
            match leaf:
                case trio_websocket.ConnectionClosed():
                    return self._closed(leaf.reason)
                case trio_websocket.ConnectionRejected():
                    return self._rejected(leaf.status_code)
                case _SilentError():
                    said = f"nothing was heard from the server for {PEER_SILENCE_S:g} s"
                    return ServerClosed(1006, "silent", said)
                case CutShortError():
                    where = self._address.shown
                    return ConnectFailed(f"{where} hung up instead of opening a WebSocket")
                case LocalProtocolError():  # trio-websocket answered while it was closing
                    return ServerClosed(1006, "")
                case _:
                    continue
        error = leaves(group)[0]
        what = str(error) if isinstance(error, BadEventError) else repr(error)
        failure = (
            ServerClosed(1002, "protocol_error", what)
            if self._admitted
            else ConnectFailed(f"{self._address.shown} does not speak this protocol: {what}")
        )
        failure.retry = False
        failure.__cause__ = error
        return failure

    def _closed(self, reason: trio_websocket.CloseReason | None) -> ClientError:
        code, slug = (reason.code, reason.reason or "") if reason else (1006, "")
        if not self._admitted:
            where = self._address.shown
            return self.refusal(code) or ConnectFailed(f"{where} closed with {code} {slug}".strip())
        error = self._last_error
        if error is not None and error.reason_code == slug:
            return ServerClosed(code, slug, error.message, _advice(error))
        return ServerClosed(code, slug)

    def _rejected(self, status: int) -> ConnectFailed:
        where = self._address.shown
        if status == HTTPStatus.NOT_FOUND:
            hint = "there is no such path here; the server's is /ws"
        elif 200 <= status < 400:
            hint = "this is no WebSocket"
        else:
            hint = "the WebSocket was not opened"
        said = f"{where} answered with HTTP {status}: {hint}"
        return ConnectFailed(said, retry=status in {429, 502, 503, 504}, status=status)


def _advice(error: Error) -> float | None:
    seconds = error.details.get("retry_after_s")
    return float(seconds) if isinstance(seconds, int | float) else None
