"""One accepted socket under guard: nothing that its peer does or fails to do holds it for ever.

The stream belongs to the task that awaits `run`; it is closed when `run` returns. Inside, one task
(`read`) receives, any task sends, and one cancel scope spans them all, the application included:
ending the connection means cancelling that scope, so the app learns of a cut at the same moment.

1. A send is never torn in two by a cancelled caller. What the kernel does not take at once is
   shielded, and under a deadline instead: a peer that has not taken it in `write_deadline_s`, the
   queue included, is a slow consumer.
2. The whole connection has at most one deadline, `_due` says what it means when it passes: the
   handshake until `admit`, nothing afterwards, the close handshake once our Close or EOF is out.
3. Silence counts only while a receive is pending: time in which we do not read is our own.
4. A kernel that closes a socket with unread input resets the connection, which may destroy what we
   sent last. So `close` sends EOF and the reader then discards input until the peer hangs up.
5. The first reason given for an end stays; cutting is synchronous and never waits.
6. To end a connection with all its tasks costs more than a millisecond, and a crowd may leave in
   one moment. So whose peer has left waits for its turn: those who stay are served in between.
"""

from __future__ import annotations

import contextlib
import enum
import math
import socket
import struct
from collections.abc import Awaitable, Callable

import attrs
import trio

from voxtral_actors import limits
from voxtral_actors.server.direct_stream import DirectStream
from voxtral_actors.standstill import stood_still

RECEIVE_BYTES = 65_536
"""One receive: as hypercorn does it; the kernel's buffer is the larger one anyway."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() drop what a peer did not take, and the kernel's memory with it."""


class Ending(enum.StrEnum):
    """Why a connection ends; the listener counts them under these names."""

    CLOSED = "closed"
    CLIENT_LEFT = "client_left"
    IDLE = "idle"
    BAD_REQUEST = "bad_request"
    PROTOCOL_ERROR = "protocol_error"
    MESSAGE_TOO_BIG = "message_too_big"
    SLOW_CONSUMER = "slow_consumer"
    PEER_SILENT = "peer_silent"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    CLOSE_TIMEOUT = "close_timeout"
    PUSHED_OUT = "pushed_out"
    ABORTED = "aborted"
    SERVER_STOPPED = "server_stopped"
    FAILED = "failed"

    @property
    def is_fault(self) -> bool:
        """Whether somebody did what they should not, as against a connection that just ended."""
        return self not in {Ending.CLOSED, Ending.CLIENT_LEFT, Ending.IDLE, Ending.SERVER_STOPPED}


@attrs.frozen(kw_only=True)
class WireOptions:
    """How one listener guards its sockets. The two without default are settings."""

    write_deadline_s: float
    max_message_bytes: int
    handshake_s: float = limits.HANDSHAKE_S
    close_handshake_s: float = limits.CLOSE_HANDSHAKE_S
    peer_silence_s: float = limits.PEER_SILENCE_S
    ping_interval_s: float = limits.PING_INTERVAL_S
    max_unadmitted: int = limits.MAX_UNADMITTED_SOCKETS


@attrs.frozen
class WireStatistics:
    """One connection, as `/metrics`, logs and tests see it."""

    peer: str
    age_s: float
    admitted: bool
    ending: str | None
    bytes_in: int
    bytes_out: int


class GuardedStream:
    """A stream whose every wait is bounded; see the rules above.

    `stream` may have the `send_now` of a `DirectStream`.
    """

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        options: WireOptions,
        departures: trio.CapacityLimiter,
    ) -> None:
        self.options = options
        self.admitted = False
        self.opened_at = trio.current_time()
        self.bytes_in = 0
        self.bytes_out = 0
        self._stream = stream
        self._hand_over: Callable[[bytes], int] | None = getattr(stream, "send_now", None)
        self._ending: Ending | None = None
        self._over = False
        self._draining = False
        self._due = Ending.HANDSHAKE_TIMEOUT
        self._pending_since: float | None = None  # since when a receive waits, if one does
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope(deadline=self.opened_at + options.handshake_s)
        self._sends: set[trio.CancelScope] = set()  # under way, or waiting for the one that is
        self._send_lock = trio.Lock()
        self._departures = departures
        self._departing = False

    @property
    def over(self) -> bool:
        """Whether the connection has been cut, by `abort` or by its deadline."""
        # The second question is dear, for it is asked of the clock.
        return self._over or (self._scope.deadline < math.inf and self._scope.cancel_called)

    @property
    def ending(self) -> Ending | None:
        """Why the connection ends, or ended; None while nothing has ended it.

        When the whole server is cancelled, an app may be cancelled a moment before this is set.
        """
        if self._ending is None and self._scope.cancel_called:
            return self._due
        return self._ending

    @property
    def fault(self) -> Ending | None:
        """`ending`, if it is one that somebody is to blame for."""
        ending = self.ending
        return ending if ending is not None and ending.is_fault else None

    def admit(self) -> None:
        """Lift the handshake deadline: the peer is known. From now on it must not fall silent."""
        if self.admitted or self.over:
            return
        self.admitted = True
        if self._due is Ending.HANDSHAKE_TIMEOUT:
            self._scope.deadline = math.inf
            for send in self._sends:
                send.deadline = trio.current_time() + self.options.write_deadline_s
        if self._nursery is not None:
            self._nursery.start_soon(self._watch_silence)

    def abort(self, ending: Ending = Ending.ABORTED) -> None:
        """End the connection now, app included, with nothing more sent; safe to call any time."""
        self.note(ending)
        self._over = True
        for send in self._sends:
            send.cancel(reason=ending)
        self._scope.cancel(reason=ending)

    def note(self, ending: Ending) -> None:
        """Record why the connection is about to end, unless a reason is known."""
        if self._ending is None:
            self._ending = ending

    def idle(self, *, idle: bool) -> None:
        """Between two HTTP requests a connection may be cut without anybody being to blame."""
        if not self.over and self._due in {Ending.HANDSHAKE_TIMEOUT, Ending.IDLE}:
            self._due = Ending.IDLE if idle else Ending.HANDSHAKE_TIMEOUT

    def close_sent(self) -> None:
        """Our Close frame is out: the peer has a moment to answer and hang up."""
        self._due = Ending.CLOSE_TIMEOUT
        self._scope.deadline = trio.current_time() + self.options.close_handshake_s

    async def run(self, body: Callable[[trio.Nursery], Awaitable[None]]) -> None:
        """Run `body`, which reads until the connection is over; then end all that it started."""
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    await body(self._nursery)
                    self._nursery.cancel_scope.cancel(reason=self.ending)
            if self._scope.cancelled_caught:
                self.note(self._due)
        finally:
            self._over = True
            if self._ending in {Ending.SLOW_CONSUMER, Ending.PEER_SILENT}:
                self._reset_on_close()
            try:
                await trio.aclose_forcefully(self._stream)
            finally:
                if self._departing:
                    self._departures.release()

    async def read(self, handle: Callable[[bytes], Awaitable[None]]) -> None:
        """Hand what arrives to `handle`, or discard it once we are closing, until the peer ends."""
        while True:
            self._pending_since = trio.current_time()
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            self._pending_since = None
            if not data:
                await self._departures.acquire()  # until the end of `run`, which is this task's
                self._departing = True
                closing = self._draining or self._due is Ending.CLOSE_TIMEOUT
                self.abort(Ending.CLOSED if closing else Ending.CLIENT_LEFT)
                return
            self.bytes_in += len(data)
            if not self._draining:
                await handle(bytes(data))

    async def ping(self) -> None:
        """Ask the peer for a sign of life, if there is a way to."""

    async def _watch_silence(self) -> None:
        """Ping, and cut a peer for which a receive has waited too long; dearer with a deadline a
        receive, and in two tasks."""
        limit, interval = self.options.peer_silence_s, self.options.ping_interval_s
        ping_at = trio.current_time() + interval
        while True:
            now = trio.current_time()
            cut_at = limit + (now if self._pending_since is None else self._pending_since)
            if now >= cut_at:
                self.abort(Ending.PEER_SILENT)
                return
            if now >= ping_at:
                ping_at = now + interval
                await self.ping()
            await trio.sleep_until(min(cut_at, ping_at))
            if stood_still(cut_at):  # what the peer sent is in the socket: read it first
                await trio.sleep(limits.STANDSTILL_S)

    async def send_all(self, data: bytes) -> None:
        """Send all of `data` or end the connection; never raises for a peer that is gone.

        A caller that sends in a loop is cancelled at the checkpoint after the end. Before that this
        is a checkpoint only where it has to wait.
        """
        if data := self.send_now(data):
            await self._send_rest(data)
        if self.over:
            await trio.lowlevel.checkpoint()

    def send_now(self, data: bytes) -> bytes:
        """Send what goes out without a wait, if nobody waits already; returns what is left."""
        if self._hand_over is None or self._sends or self._draining or self.over:
            return data
        try:
            sent = self._hand_over(data)
        except trio.BrokenResourceError:
            self.abort(Ending.CLIENT_LEFT)
            return b""
        self.bytes_out += sent
        return data[sent:]

    async def _send_rest(self, data: bytes) -> None:
        limit = trio.current_time() + self.options.write_deadline_s
        limit = min(limit, self._scope.deadline)  # it does not reach behind the shield by itself
        scope = trio.CancelScope(shield=True, deadline=limit)
        self._sends.add(scope)
        try:
            with scope:
                async with self._send_lock:
                    if not self.over:
                        await self._stream.send_all(data)
                        self.bytes_out += len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.abort(Ending.CLIENT_LEFT)
        finally:
            self._sends.discard(scope)
        if scope.cancelled_caught:
            self.abort(self.ending or Ending.SLOW_CONSUMER)

    async def close(self) -> None:
        """Say EOF, then let the reader discard what still comes; bounded by the close handshake."""
        if self._draining or self.over:
            return
        self._draining = True
        limit = trio.current_time() + self.options.close_handshake_s
        if limit < self._scope.deadline:
            self._scope.deadline = limit
            self._due = Ending.CLOSED
        with trio.CancelScope(shield=True):  # bounded: see `send_all`; EOF itself does not wait
            async with self._send_lock:
                try:
                    await self._stream.send_eof()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self.abort(Ending.CLIENT_LEFT)

    def _reset_on_close(self) -> None:
        if isinstance(self._stream, DirectStream):
            with contextlib.suppress(OSError):  # it may be reset or closed already
                self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
