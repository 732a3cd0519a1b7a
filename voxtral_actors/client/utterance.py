"""One utterance of a session: audio in, events out, exactly one of them the last.

Events arrive from the reader, which never waits here: deltas that nobody has taken yet are merged
into one, so what waits is bounded by the text itself, however slow the consumer is.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

import trio

from voxtral_actors.client import limits
from voxtral_actors.client.errors import (
    NoAnswer,
    RequestRefused,
    UtteranceCancelled,
    UtteranceEnded,
    UtteranceFailed,
)
from voxtral_actors.limits import BYTES_PER_SAMPLE
from voxtral_actors.protocol.commands import Append, Cancel, Finalise, Start
from voxtral_actors.protocol.events import Cancelled, Delta, Done, Error

if TYPE_CHECKING:
    from voxtral_actors.client.session import Session

Outcome: TypeAlias = Done | Cancelled | Error
UtteranceEvent: TypeAlias = Delta | Outcome

_MESSAGE_ERRORS = frozenset({"invalid_message", "invalid_payload", "rate_limited"})
"""Errors about one message. Here it was audio, a start or a finish that the server did not act on,
so the text could only be wrong: the utterance is over, and the server has to be told."""


class Utterance:
    """Made by `Session.utterance`; use it with `async with`.

    `outcome` is the last event once there is one. Iterating gives `Delta` events and then the
    outcome; it raises only when the connection is lost. Several tasks may send and iterate.
    """

    def __init__(self, session: Session, request_id: str) -> None:
        self.request_id = request_id
        self.outcome: Outcome | None = None
        self.finished = False
        """Whether the server was told that no more audio comes."""
        self._session = session
        self._held = bytearray()
        self._deltas: list[str] = []
        self._audio_ms = 0
        self._told = False
        self._news = trio.lowlevel.ParkingLot()
        self._cancel_refused: Error | None = None

    # --- For the caller ----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        session = self._session
        session.link.check()
        await session.link.outbox.room()
        session.link.check()
        session.begin(self)
        session.post(Start(session.session_id, self.request_id))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.abandon("client_left")
        self._session.forget(self)

    async def send(self, audio: bytes | bytearray | memoryview) -> None:
        """Send PCM16 little endian, 16 kHz, one channel; any length, cut anywhere.

        Waits while the server is not reading. Once called, the audio is accepted: a cancelled call
        loses nothing of it.

        Raises:
            UtteranceEnded, UtteranceFailed, UtteranceCancelled: no more audio is taken.
            ServerClosed: the connection is gone.
            trio.ClosedResourceError: `finish` was called, or the session was ended.
        """
        self._check_taking()
        self._held += audio
        await trio.lowlevel.checkpoint()
        while len(self._held) >= limits.MIN_FRAME_BYTES:
            await self._room()
            self._post_held()

    async def finish(self) -> None:
        """Say that no more audio comes; the rest of the text follows. Harmless if called twice.

        Raises:
            ValueError: the audio ended in half a sample.
            The errors of `send`, except that an utterance which is done already is no error.
        """
        if self.finished or isinstance(self.outcome, Done):
            await trio.lowlevel.checkpoint()
            return
        if len(self._held) % BYTES_PER_SAMPLE:
            raise ValueError("the audio has an odd number of bytes; PCM16 has two a sample")
        while True:
            await self._room()
            if not self._held:
                break
            self._post_held()
        self.finished = True
        self._session.post(Finalise(self._session.session_id, self.request_id))
        self._session.release(self)

    async def cancel(self, reason: str | None = None) -> None:
        """Cancel on the server and wait until it is over there; harmless once it is.

        Raises:
            NoAnswer, RequestRefused, ServerClosed: it is not known to be over.
        """
        self._cancel_refused = None
        self.abandon(reason)
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(limits.ANSWER_S):
            while self.outcome is None:
                self._session.link.check()
                if (error := self._cancel_refused) is not None:
                    raise RequestRefused(error.code, error.reason_code, error.message)
                await self._news.park()
        if self.outcome is None:
            raise NoAnswer(f"cancel of {self.request_id} was not answered in {limits.ANSWER_S:g} s")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> UtteranceEvent:
        await trio.lowlevel.checkpoint()
        while True:
            if self._deltas:
                return self._take_delta()
            if self._told:
                raise StopAsyncIteration
            if self.outcome is not None:
                self._told = True
                return self.outcome
            self._session.link.check()
            await self._news.park()

    async def text(self) -> str:
        """The whole text, once it is final. Call it after `finish`, inside the block.

        Raises:
            UtteranceFailed, UtteranceCancelled, ServerClosed: there is no final text.
        """
        async for _ in self:
            pass
        if isinstance(self.outcome, Done):
            return self.outcome.text
        raise self._ending()

    # --- For the session ---------------------------------------------------------------------

    def deliver(self, event: UtteranceEvent) -> None:
        if self.outcome is not None:
            return
        match event:
            case Delta():
                self._deltas.append(event.delta)
                self._audio_ms = event.audio_ms
            case Error(reason_code="cancel_rate_limited"):
                self._cancel_refused = event
            case Error(code=code) if code in _MESSAGE_ERRORS:
                self.abandon("not_understood")
                self._conclude(event)
            case Error() | Done() | Cancelled():
                self._conclude(event)
        self.wake()

    def wake(self) -> None:
        self._news.unpark_all()

    def abandon(self, reason: str | None) -> None:
        """Cancel on the server without waiting, if it can still be running there."""
        session = self._session
        if self.outcome is not None or session.link.closing or session.link.ended.is_set():
            return
        if self.finished and session.active is not None:
            # A cancel that crosses this tail's `done` would hit the utterance that is active now.
            self._conclude(Cancelled(session.session_id, self.request_id, reason or "client_left"))
            return
        session.post(Cancel(session.session_id, self.request_id, reason))

    # --- Inside ------------------------------------------------------------------------------

    def _conclude(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._held.clear()
        self._session.release(self)
        self.wake()

    def _take_delta(self) -> Delta:
        text = "".join(self._deltas)
        self._deltas.clear()
        return Delta(self._session.session_id, self.request_id, text, self._audio_ms)

    async def _room(self) -> None:
        self._check_taking()
        await self._session.link.outbox.room()
        self._check_taking()

    def _post_held(self) -> None:
        size = min(len(self._held), limits.MAX_FRAME_BYTES)
        size -= size % BYTES_PER_SAMPLE
        if not size:
            return
        audio = bytes(memoryview(self._held)[:size])
        del self._held[:size]
        session = self._session
        session.post(
            Append(audio) if session.binary else Append(audio, session.session_id, self.request_id)
        )

    def _check_taking(self) -> None:
        if self.outcome is not None:
            raise self._ending()
        self._session.link.check()
        if self.finished:
            raise trio.ClosedResourceError("finish() was called: no more audio is taken")
        if self._session.active is not self:
            raise UtteranceCancelled(self.request_id, "superseded")

    def _ending(self) -> UtteranceEnded:
        match self.outcome:
            case Error() as error:
                return UtteranceFailed(
                    self.request_id, error.code, error.reason_code, error.message
                )
            case Cancelled(reason=reason):
                return UtteranceCancelled(self.request_id, reason)
            case _:
                return UtteranceEnded(self.request_id)
