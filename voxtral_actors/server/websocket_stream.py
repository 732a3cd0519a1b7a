"""hypercorn's WebSocket with the limits, and the ends, that it leaves open.

1. No compression is ever negotiated: it could only be bounded after it has been inflated. A list
   in several header lines is one list.
2. A frame that comes before the app has accepted is answered 400, and the app can accept no more.
3. A message is counted in bytes as it arrives; past the limit the peer gets 1009 and the app its
   disconnect, at once. A frame that breaks the protocol is answered with the Close code for it.
4. After our Close frame input is dropped, not queued: nobody reads it any more.
5. Once both Close frames are exchanged the connection ends there and then.
6. An admitted client's messages go between `messages`, or who is `handing`, and `write`, without
   the detour over ASGI events and quart-trio's queue: a task's turn and a dict for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import trio
from hypercorn.protocol.events import Data, Event, Request, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage
from wsproto.events import Event as WebSocketEvent
from wsproto.utilities import LocalProtocolError

from voxtral_actors.connection.wiring import Queue
from voxtral_actors.protocol.closing import Close
from voxtral_actors.server.guarded_stream import Ending, GuardedStream

FRAMES_AT_ONCE = 64
"""Frames of one receive that are handled before other tasks get their turn: 64 KiB may hold ten
thousand of them, and some (pongs, fragments) wait for nothing by themselves."""


FRAGMENT_COST = 64
"""What a fragment is charged beside its bytes: about what it costs in memory while it waits. So a
message of empty fragments comes to an end too."""


UNREAD_MESSAGES = 10
"""Messages that wait for the app: as many as in quart-trio's own queue."""


class _TooBigError(Exception):
    """A message grew past the limit."""


class _Assembly:
    """One message in the making, counted in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[Any] = []
        self._bytes = 0

    def add(self, event: Message[Any]) -> str | bytes | None:
        """The message, once its last part is in."""
        part = event.data
        if isinstance(part, str) and not part.isascii():
            self._bytes += len(part.encode())
        else:
            self._bytes += len(part)
        if event.frame_finished and not event.message_finished:
            self._bytes += FRAGMENT_COST
        if self._bytes > self._max_bytes:
            raise _TooBigError
        self._parts.append(part)
        if not event.message_finished:
            return None
        parts, self._parts, self._bytes = self._parts, [], 0
        return "".join(parts) if isinstance(event, TextMessage) else b"".join(parts)


class WebSocket(WSStream):
    """The stream of one upgraded connection."""

    def __init__(self, guard: GuardedStream, *args: Any) -> None:
        super().__init__(*args)
        self._guard = guard
        self._assembly = _Assembly(self.config.websocket_max_message_size)
        self._inbox: Queue[str | bytes] | None = None
        self._pass_by: Callable[[str | bytes], bool] | None = None
        self._unsent = b""

    @contextmanager
    def messages(self) -> Iterator[Queue[str | bytes]]:
        """The client's messages, when the app wants them like this: from before it accepts on."""
        self._inbox = Queue(UNREAD_MESSAGES)
        with self._inbox.send, self._inbox.receive:
            yield self._inbox

    @contextmanager
    def handing(self, pass_by: Callable[[str | bytes], bool]) -> Iterator[None]:
        """See `connection.transport.Transport.handing`."""
        self._pass_by = pass_by
        try:
            yield
        finally:
            self._pass_by = None

    def write(self, text: str) -> bool:
        """Send a message, once accepted, as far as that needs no wait. False: `drain` has to send
        the rest. When the client is gone it is as if it had been sent."""
        if not self.closed and self.state is ASGIWebsocketState.CONNECTED:
            self._unsent = self._guard.send_now(self._encoded(TextMessage(data=text)))
        return not self._unsent

    async def drain(self) -> None:
        """Send what is left of the message that was written last."""
        data, self._unsent = self._unsent, b""
        await self._guard.send_all(data)

    async def ping(self) -> None:
        """Send a Ping, if that still makes sense."""
        if not self.closed and self.handshake.accepted:
            await self._send_wsproto_event(Ping())

    async def take(self, data: bytes) -> bool:
        """Read what came from the socket, if it is frames; else it is hypercorn's to look at."""
        if self.closed or not self.handshake.accepted:
            return False
        self.connection.receive_data(data)
        await self._handle_events()
        return True

    async def handle(self, event: Event) -> None:
        if isinstance(event, Request):
            await super().handle(replace(event, headers=_as_hypercorn_reads_it(event.headers)))
            if self.closed:  # refused, and answered
                self._guard.note(Ending.BAD_REQUEST)
                await self.send(StreamClosed(stream_id=self.stream_id))
        elif isinstance(event, Data) and not self.handshake.accepted:
            if self.state is ASGIWebsocketState.HANDSHAKE and not self.closed:
                await self._refuse_early_data()
        else:
            await super().handle(event)

    async def _refuse_early_data(self) -> None:
        self.closed = True  # first of all: from here on the app can neither accept nor answer
        self._guard.note(Ending.BAD_REQUEST)
        await self._send_error_response(400)
        if self.app_put is not None:
            await self.app_put({"type": "websocket.disconnect", "code": 1006})
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def app_send(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()  # an app that sends in a loop must stay cancellable
        await super().app_send(message)

    async def _send_wsproto_event(self, event: WebSocketEvent) -> None:
        closing = isinstance(event, CloseConnection) and self.connection.state in {
            ConnectionState.OPEN,
            ConnectionState.REMOTE_CLOSING,
        }
        data = self._encoded(event)
        if not data:
            return
        await self._guard.send_all(data)  # hypercorn would hand it through three more calls
        if closing:
            self._guard.close_sent()

    def _encoded(self, event: WebSocketEvent) -> bytes:
        """The frame for an event; none where nothing more may be sent, and nobody is to blame."""
        try:
            return self.connection.send(event)
        except LocalProtocolError:
            return b""

    async def _handle_events(self) -> None:
        for count, event in enumerate(self.connection.events(), 1):
            if count % FRAMES_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            if isinstance(event, TextMessage | BytesMessage):
                if self.connection.state is not ConnectionState.OPEN:
                    continue
                try:
                    message = self._assembly.add(event)
                except _TooBigError:
                    await self._fail(Ending.MESSAGE_TOO_BIG, *_TOO_BIG)
                    return
                if message is not None:
                    await self._deliver(message)
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                await self._on_close(event)
                return

    async def _deliver(self, message: str | bytes) -> None:
        if self._inbox is not None:
            if self._inbox.idle and self._pass_by is not None and self._pass_by(message):
                return
            try:  # noqa: SIM105 - `suppress` is three calls, and this comes with every message
                await self._inbox.put(message)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the app has ended
        elif self.app_put is not None:
            text = isinstance(message, str)
            kinds = {"text": message if text else None, "bytes": None if text else message}
            await self.app_put({"type": "websocket.receive", **kinds})

    async def _on_close(self, event: CloseConnection) -> None:
        """A Close frame from the peer, or wsproto's verdict on a frame that is none."""
        if self.connection.state is ConnectionState.OPEN:
            await self._fail(Ending.PROTOCOL_ERROR, event.code, event.reason)
            return
        if self.connection.state is ConnectionState.REMOTE_CLOSING:
            await self._send_wsproto_event(event.response())
        self._guard.abort(Ending.CLOSED)

    async def _fail(self, ending: Ending, code: int, reason: str | None) -> None:
        """Close for the peer's fault: the app hears of it without waiting for the peer."""
        self._guard.note(ending)
        await self._send_wsproto_event(CloseConnection(code=code, reason=reason))
        await self.send(StreamClosed(stream_id=self.stream_id))


def _as_hypercorn_reads_it(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The header without extensions, and lists that several lines make up in one line each.

    Of a field in several lines hypercorn sees the last one only.
    """
    lists = {name: [v for n, v in headers if n == name] for name in _LISTS}
    joined = [(name, b", ".join(values)) for name, values in lists.items() if values]
    return [item for item in headers if item[0] not in {*_LISTS, _EXTENSIONS}] + joined


_EXTENSIONS = b"sec-websocket-extensions"
_LISTS = (b"connection", b"sec-websocket-protocol")
_TOO_BIG = (Close.TOO_BIG.spec.code, Close.TOO_BIG.spec.slug)
