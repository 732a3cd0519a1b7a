"""The client in memory: a socket with two ends, and a judge of everything that the server says.

`FakeTransport` is the server's end (`connection.transport.Transport`), `Client` is the other one,
which the test plays. What can go wrong with a socket are methods of the client's end. Frames wait
in `unread` until the reader takes them, as they would in a socket's buffer.

The judge knows the rules that hold in every conversation, whatever a test is about: the first event
is `session.created`, nothing comes after the Close, an event of an utterance comes only between its
start and its one terminal event, and the joined deltas are the text of `done`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TypeVar

import trio
from pybase64 import b64encode_as_string

from voxtral_actors.client.codec import Unknown, decode_event
from voxtral_actors.connection.transport import CLIENT_LEFT, Disconnected
from voxtral_actors.protocol import events
from voxtral_actors.protocol.events import CONNECTION_REQUEST_ID, ERROR_CODES, Event

SESSION = "me"
E = TypeVar("E", bound=Event)

ABOUT_A_MESSAGE = {
    "cancel_rate_limited", "invalid_audio", "invalid_envelope", "invalid_json", "invalid_payload",
    "message_rate_limited", "no_active_request", "not_an_object", "request_id_in_use",
    "request_id_mismatch", "unknown_type", "unsupported_model",
}  # fmt: skip
"""Reason codes of errors that end no utterance."""


class FakeTransport:
    """The server's end of the socket."""

    def __init__(self) -> None:
        self.departure = CLIENT_LEFT
        self.unread: deque[str | bytes] = deque()
        self.closes: list[tuple[int, str]] = []
        """Close frames that the server tried to send."""
        self.client = Client(self)
        self.gone = False
        self.reading = True
        self.pace = 0.0
        self.waiting = False
        """`receive` has been called and has nothing to return."""
        self._pass_by: Callable[[str | bytes], bool] = lambda _: False
        self._written = ""
        self.send_error: Exception | None = None
        self.receive_error: Exception | None = None
        self.changed = trio.lowlevel.ParkingLot()

    async def receive(self) -> str | bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.receive_error:
                raise self.receive_error
            if self.unread:
                return self.unread.popleft()
            if self.gone:
                raise Disconnected
            self.waiting = True
            try:
                await self.changed.park()
            finally:
                self.waiting = False

    @contextmanager
    def handing(self, pass_by: Callable[[str | bytes], bool]) -> Iterator[None]:
        self._pass_by = pass_by
        try:
            yield
        finally:
            self._pass_by = lambda _: False

    def arrive(self, frame: str | bytes) -> None:
        """A message of the client has come."""
        if self.waiting and self._pass_by(frame):
            return
        self.waiting = False
        self.unread.append(frame)
        self.changed.unpark_all()

    def write(self, text: str) -> bool:
        self._written = text
        return False

    async def drain(self) -> None:
        await self._wait_taken()
        self.client.take(self._written)

    async def close(self, code: int, reason: str) -> None:
        self.closes.append((code, reason))
        await self._wait_taken()
        self.client.closed = code, reason
        self.client.leave()

    async def _wait_taken(self) -> None:
        await trio.sleep(self.pace)
        while not self.reading and not self.gone:
            await self.changed.park()
        if self.send_error:
            raise self.send_error
        if self.gone:
            raise Disconnected


class Client:
    """The client's end. `heard` is everything that came, `closed` the Close frame that came."""

    def __init__(self, transport: FakeTransport) -> None:
        self._transport = transport
        self._arrived = trio.lowlevel.ParkingLot()
        self._texts: defaultdict[str, StringIO] = defaultdict(StringIO)
        self.alive: Counter[str] = Counter()
        """Utterances by request id that were started and have no terminal event."""
        self.heard: list[Event] = []
        self.closed: tuple[int, str] | None = None

    # --- Saying ------------------------------------------------------------------------------

    def say(self, type_: str, request_id: str = "r", **payload: object) -> None:
        """One message of the protocol, valid or not."""
        ids = {"session_id": SESSION, "request_id": request_id}
        self.frame(json.dumps({"type": type_, **ids, "payload": payload}))

    def frame(self, frame: str | bytes) -> None:
        """Anything at all. A client that left says it to nobody."""
        if not self._transport.gone:
            self._transport.arrive(frame)

    def start(self, request_id: str) -> None:
        if not self._transport.gone:
            self.alive[request_id] += 1
        self.say("input_audio_buffer.commit", request_id)

    def audio(self, pcm: bytes, request_id: str | None = None) -> None:
        """A binary frame, or an append if it names an utterance."""
        if request_id is None:
            self.frame(pcm)
        else:
            self.say("input_audio_buffer.append", request_id, audio=b64encode_as_string(pcm))

    def finalise(self, request_id: str) -> None:
        self.say("input_audio_buffer.commit", request_id, final=True)

    def utter(self, request_id: str, pcm: bytes) -> None:
        """A whole utterance, in pieces that are no multiple of anything."""
        self.start(request_id)
        for start in range(0, len(pcm), 5002):
            self.audio(pcm[start : start + 5002])
        self.finalise(request_id)

    def cancel(self, request_id: str, **reason: str) -> None:
        self.say("cancel", request_id, **reason)

    # --- Failing -----------------------------------------------------------------------------

    def leave(self) -> None:
        """Hang up; what was said before is still there to be read."""
        self._transport.gone = True
        self._transport.changed.unpark_all()

    def stop_reading(self) -> None:
        """From now on every send of the server waits."""
        self._transport.reading = False

    def read_again(self) -> None:
        self._transport.reading = True
        self._transport.changed.unpark_all()

    def read_slowly(self, pace: float) -> None:
        """Every send of the server takes so many seconds."""
        self._transport.pace = pace

    def fail_send(self, error: Exception) -> None:
        """Every send of the server raises."""
        self._transport.send_error = error

    def fail_receive(self, error: Exception) -> None:
        """The server's wait for a message raises, and so does every later one."""
        self._transport.receive_error = error
        self._transport.changed.unpark_all()

    # --- Hearing -----------------------------------------------------------------------------

    def events(self, request_id: str) -> list[Event]:
        """What came for one request id."""
        return [event for event in self.heard if event.request_id == request_id]

    def the(self, kind: type[E], request_id: str | None = None) -> E:
        """The only event of its kind, of this request id if one is given."""
        (event,) = self._find(kind, request_id)
        return event

    def slugs(self) -> list[str]:
        """The reason codes of all errors."""
        return [event.reason_code for event in self.heard if isinstance(event, events.Error)]

    async def hear(self, kind: type[E], request_id: str | None = None) -> E:
        """Wait until such an event is there; the last one if there are several."""
        while not (found := self._find(kind, request_id)):
            await self._arrived.park()
        return found[-1]

    def _find(self, kind: type[E], request_id: str | None) -> list[E]:
        fits = (e for e in self.heard if request_id in (None, e.request_id))
        return [event for event in fits if isinstance(event, kind)]

    # --- Judging -----------------------------------------------------------------------------

    def take(self, text: str) -> None:
        event = decode_event(text)
        assert not isinstance(event, Unknown)
        assert self.closed is None, f"{event} after the Close"
        assert isinstance(event, events.SessionCreated) == (not self.heard), event
        self._judge(event)
        self.heard.append(event)
        self._arrived.unpark_all()

    def _judge(self, event: Event) -> None:
        name = event.request_id
        match event:
            case events.Delta():
                assert self.alive[name] > 0, f"{event} of no living utterance"
                assert event.delta
                self._texts[name].write(event.delta)
            case events.Done():
                assert event.text == self._texts[name].getvalue()
                self._ended(event)
            case events.Cancelled() if event.reason != "no_active_request":
                self._ended(event)
            case events.Error():
                assert event.code in ERROR_CODES
                if event.reason_code == "request_id_in_use":
                    self.alive[name] -= 1  # this start made no utterance
                elif event.reason_code not in ABOUT_A_MESSAGE and name != CONNECTION_REQUEST_ID:
                    self._ended(event)
            case _:
                pass

    def _ended(self, event: Event) -> None:
        assert self.alive[event.request_id] > 0, f"{event} ends nothing"
        self.alive[event.request_id] -= 1
        self._texts.pop(event.request_id, None)
