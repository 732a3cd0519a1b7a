"""A client on the simulated network: what it says and hears goes through the real protocol stack.

`Peer` joins three things that exist: the socket (`Raw`, frame by frame), the client that the
connection tests play (`tests/connection/client.py`, with its judge, which raises at once when the
server breaks a rule of the conversation), and the network's stream. Two pumps move frames between
them; a third task, the script, plays the client:

    async with world.peer("c1", Toxics(latency_s=0.1)) as peer:
        peer.client.start("c1.1")
        peer.client.audio(pcm)
        await peer.client.hear(Done, "c1.1")

When the block is left the client hangs up. `run(script)` is the same with a script as a function,
which is cancelled when the server ends the connection.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from tests.chaos.network import MemoryStream
from tests.connection.client import FakeTransport
from tests.server.wire_helpers import BINARY, CLOSE, PING, PONG, TEXT, Raw, frame
from voxtral_actors.client.codec import decode_event
from voxtral_actors.connection.transport import Disconnected, send
from voxtral_actors.limits import CLOSE_HANDSHAKE_S
from voxtral_actors.protocol import events

if TYPE_CHECKING:
    from tests.chaos.world import World


ANSWER_S = 120.0
"""For the answer to a Close of ours; it may stand behind audio that the engine does not take."""

HEADER_BYTES = 14
"""Of a frame from a client, at most."""


class Wired(bytes):
    """Bytes that go out as they are: a control frame, or no frame at all."""


class Peer:
    """One client. `client` speaks and judges; what is here is about the socket."""

    def __init__(self, world: World, name: str, stream: MemoryStream) -> None:
        self.world = world
        self.name = name
        self.stream = stream
        self.raw = Raw(stream)
        self.transport = FakeTransport()
        self.client = self.transport.client
        self.opened_at = trio.current_time()
        self.heard_at: list[float] = []
        """When each of `client.heard` came."""
        self.last_said_at = self.opened_at
        """When the last message was given to the socket."""
        self.ending: str | None = None
        """How the socket ended, as this end saw it: `closed` (a Close frame came), `eof`, `reset`,
        or `left` (this end hung up first)."""
        self.ended_at = math.inf
        self._sending = 0
        self._hushed = trio.CancelScope()
        self._news = trio.lowlevel.ParkingLot()

    @property
    def left(self) -> bool:
        return self.ending == "left"

    @property
    def unsent_s(self) -> float:
        """How long what was said and not yet taken by the socket needs to the server at most."""
        waiting = sum(len(said) + HEADER_BYTES for said in self.transport.unread)
        return self.stream.link.toxics.transfer_s(self._sending + waiting)

    def note(self, what: str) -> None:
        self.world.trace.add(self.name, what)

    # --- Saying ------------------------------------------------------------------------------

    def wire(self, data: bytes) -> None:
        """Send bytes as they are, behind everything that was said."""
        self.transport.unread.append(Wired(data))
        self.transport.changed.unpark_all()

    async def news(self) -> None:
        """Wait for the next event."""
        await self._news.park()

    # --- Hanging up --------------------------------------------------------------------------

    def hang_up(self, how: str) -> None:
        """End it from this side: `close` (a Close frame), `eof` (no word), `reset`, `vanish`."""
        self.note(f"hangs up: {how}")
        self._end("left")
        match how:
            case "close":
                self.wire(frame(CLOSE, struct.pack("!H", 1000)))
            case "reset":
                self.stream.reset()
            case "vanish":
                self.stream.vanish()
            case _:
                assert how == "eof"
        self.client.leave()
        self.client.read_again()
        if how != "close":
            self._hushed.cancel(reason="hung up")

    def turned_away(self) -> None:
        """The WebSocket was never open."""
        self._end("turned away")

    def _end(self, ending: str) -> None:
        if self.ending is None:
            self.ending, self.ended_at = ending, trio.current_time()
            self.note(f"ends: {ending} {self.client.closed or ''}")

    # --- The pumps ---------------------------------------------------------------------------

    async def run(self, script: Callable[[Peer], Awaitable[None]]) -> None:
        """Play `script` while the connection lives; hang up behind it."""
        async with trio.open_nursery() as nursery:

            async def play() -> None:
                await script(self)
                if self.ending is None:
                    self.hang_up("close")
                await trio.sleep(ANSWER_S + self.unsent_s)
                if not self.stream.link.toxics.loses:
                    self.world.complain(f"{self.name}: no answer to its Close")
                self._hushed.cancel(reason="no answer")

            nursery.start_soon(self._speak)
            nursery.start_soon(play)
            with self._hushed:
                await self._listen()
            nursery.cancel_scope.cancel(reason="the connection is over")
        self.stream.abandon()

    async def _speak(self) -> None:
        with suppress(Disconnected, trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                said = await self.transport.receive()
                if isinstance(said, Wired):
                    await self.raw.send(bytes(said))
                    continue
                text = isinstance(said, str)
                data = said.encode() if isinstance(said, str) else said
                self.last_said_at = trio.current_time()
                self._sending = len(data) + HEADER_BYTES
                await self.raw.send(frame(TEXT if text else BINARY, data))
                self._sending = 0

    async def _listen(self) -> None:
        ending = "eof"
        try:
            while True:
                opcode, payload = await self.raw.frame(skip=())
                if opcode == TEXT:
                    await self._hear(payload.decode())
                elif opcode == PING:
                    self.wire(frame(PONG, payload))
                elif opcode == CLOSE:
                    await self._on_close(payload)
        except (EOFError, Disconnected):
            pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            ending = "reset"
        self._end("closed" if self.client.closed else ending)

    async def _on_close(self, payload: bytes) -> None:
        """The server closes, or answers our Close."""
        code = struct.unpack("!H", payload[:2])[0] if payload else 1005
        if self.ending is None:
            self.wire(frame(CLOSE, payload[:2]))
            await self.transport.close(code, payload[2:].decode())
            self._end("closed")
        toxics = self.stream.link.toxics
        with trio.move_on_after(CLOSE_HANDSHAKE_S + 1 + toxics.slow_close_s + 2 * toxics.delay_s):
            await self.raw.gone()
            raise EOFError
        if not toxics.loses:
            self.world.complain(f"{self.name}: the socket stays open behind the Close")
        raise EOFError

    async def _hear(self, text: str) -> None:
        if not self.client.heard and isinstance(refusal := decode_event(text), events.Error):
            self.client.heard.append(refusal)  # no conversation, so nothing for its judge
        else:
            await send(self.transport, text)
        event = self.client.heard[-1]
        self.heard_at.append(trio.current_time())
        self._news.unpark_all()
        text = f"hears {type(event).__name__} {event.request_id}"
        match event:
            case events.Delta():
                text += f" {event.delta!r} {event.audio_ms}"
            case events.Done():
                text += f" {event.text!r}"
            case events.Cancelled() | events.SessionEnd():
                text += f" {event.reason}"
            case events.Error():
                text += f" {event.reason_code}"
            case _:
                pass
        self.note(text)
