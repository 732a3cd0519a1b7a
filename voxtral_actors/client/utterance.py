"""One utterance of a session: audio in, events out, exactly one of them the last.

An utterance outlives its connection. Its audio is kept until its text is final (`recording`), and
on the next connection it starts anew under the same request id; what its text then says a second
time is not told again (`transcript`). Who sends notices nothing but a pause.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

import trio

from voxtral_actors.client import limits
from voxtral_actors.client.errors import NoAnswer, RequestRefused, UtteranceCancelled, ending_error
from voxtral_actors.client.heard import BYTES_PER_S, Heard, Revised
from voxtral_actors.client.link import Link
from voxtral_actors.client.meaning import Meaning, Outcome, meaning, taken_bytes
from voxtral_actors.client.recording import Recording
from voxtral_actors.limits import BYTES_PER_SAMPLE
from voxtral_actors.protocol.commands import Append, Cancel, Finalise, Start
from voxtral_actors.protocol.events import Cancelled, Delta, Done, Error

if TYPE_CHECKING:
    from voxtral_actors.client.session import Session

UtteranceEvent: TypeAlias = Delta | Revised | Outcome


class Utterance:
    """Made by `Session.utterance`; use it with `async with`.

    `outcome` is the last event once there is one. Iterating gives `Delta` events, after a reconnect
    perhaps a `Revised`, and then the outcome; it raises only when the session is lost. Several
    tasks may send and iterate.
    """

    def __init__(self, session: Session, request_id: str) -> None:
        self.request_id = request_id
        self.outcome: Outcome | None = None
        self.finished = False
        """Whether `finish` was called: no more audio comes."""
        self.tried: Link | None = None
        """The connection on which it was started last."""
        self._link: Link | None = None  # the one on which the server takes it; else it is kept here
        self._session = session
        self._ids = session.session_id, request_id
        self._recording = Recording(int(session.keep_audio_s * BYTES_PER_S))
        self._heard = Heard(*self._ids)
        self._told = False
        self._waiting = trio.lowlevel.ParkingLot()
        self._cancelling: str | None = None
        self._cancel_refused: Error | None = None

    @property
    def lost_s(self) -> float:
        """Seconds of audio, at most, without text: lost with a connection, and kept no more."""
        return self._recording.lost / BYTES_PER_S

    # --- For the caller ----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        session = self._session
        session.check()
        await trio.lowlevel.checkpoint()
        while session.online and session.link.outbox.full:
            await session.link.outbox.room()
        session.check()
        session.begin(self)
        if session.online:
            self._start(session.link)
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

        Waits while the server is not reading, and while there is no connection and as much is kept
        as may be. Once called, the audio is accepted: a cancelled call loses nothing of it.

        Raises:
            UtteranceEnded, UtteranceFailed, UtteranceCancelled: no more audio is taken.
            ServerClosed, ConnectFailed, ConnectionRefused: the session is lost.
            trio.ClosedResourceError: `finish` was called, or the session was ended.
        """
        self._check_taking()
        self._recording.add(audio)
        await trio.lowlevel.checkpoint()
        while self._recording.unsent >= limits.MIN_FRAME_BYTES and await self._turn():
            self._post_audio()

    async def finish(self) -> None:
        """Say that no more audio comes; the rest of the text follows. Harmless if called twice.

        Raises:
            ValueError: the audio ended in half a sample.
            The errors of `send`, except that an utterance which is done already is no error.
        """
        await trio.lowlevel.checkpoint()
        if self.finished or isinstance(self.outcome, Done):
            return
        if self._recording.end % BYTES_PER_SAMPLE:
            raise ValueError("the audio has an odd number of bytes; PCM16 has two a sample")
        self._check_taking()
        while await self._turn() and self._recording.unsent:
            self._post_audio()
        self.finished = True
        if self._taken:
            self._session.post(Finalise(*self._ids))
        elif self._link is None:
            self._conclude_if_complete()
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
                self._session.check()
                if (error := self._cancel_refused) is not None:
                    raise RequestRefused(error.code, error.reason_code, error.message)
                await self._waiting.park()
        if self.outcome is None:
            raise NoAnswer(f"cancel of {self.request_id} was not answered in {limits.ANSWER_S:g} s")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> UtteranceEvent:
        await trio.lowlevel.checkpoint()
        while True:
            if self._heard.waiting:
                return self._heard.take()
            if self._told:
                raise StopAsyncIteration
            if self.outcome is not None:
                self._told = True
                return self.outcome
            self._session.check()
            await self._waiting.park()

    async def text(self) -> str:
        """The whole text, once it is final. Call it after `finish`, inside the block.

        Raises:
            UtteranceFailed, UtteranceCancelled, ServerClosed: there is no final text.
        """
        async for _ in self:
            pass
        if isinstance(self.outcome, Done):
            return self.outcome.text
        raise ending_error(self.request_id, self.outcome)

    # --- For the session ---------------------------------------------------------------------

    def deliver(self, event: Delta | Outcome) -> None:
        if self.outcome is not None or self._link is None:
            return
        means = meaning(
            event,
            resumable=self._session.reconnects,
            cancelling=self._cancelling is not None,
            finished=self.finished,
            posted=self._recording.sent - self._heard.floor,
        )
        match means, event:
            case Meaning.TEXT, Delta():
                self._heard.delta(event)
            case Meaning.CANCEL_REFUSED, Error():
                self._cancelling, self._cancel_refused = None, event
            case Meaning.PART, Done():
                self._heard.part(event)
                self._recording.settle(self._heard.floor + taken_bytes(event))
                self._link = None
                self._session.expect_close(lambda: self._conclude(self._heard.so_far()))
            case Meaning.LEAVING, _:
                self._link = None
            case Meaning.END, Done():
                self._conclude(self._heard.done(event))
            case _:
                assert not isinstance(event, Delta | Done)  # noqa: S101 - it is how it was read
                if means is Meaning.NOT_UNDERSTOOD:
                    self.abandon("not_understood")
                self._conclude(event)
        self.wake()

    def wake(self) -> None:
        self._waiting.unpark_all()

    def abandon(self, reason: str | None) -> None:
        """Cancel on the server without waiting, if it can still be running there."""
        if self.outcome is not None or self._session.over:
            return
        # A cancel that crosses a tail's `done` would hit the utterance that is active now.
        if self._link is None or (self.finished and self._session.active is not None):
            self._conclude(Cancelled(*self._ids, reason or "client_left"))
            return
        self._cancelling = reason or "client_request"
        self._session.post(Cancel(*self._ids, reason))

    def connection_lost(self) -> None:
        """The next connection will have it, unless it was as good as over."""
        self._link = None
        if self.outcome is not None:
            return
        if self._cancelling is not None:
            self._conclude(Cancelled(*self._ids, self._cancelling))
        elif not self.finished and self._session.active is not self:
            self._conclude(Cancelled(*self._ids, "superseded"))
        else:
            covered = self._heard.covered(self._session.created.transcription_delay_ms)
            self._heard.lost(whole=self._recording.rewind(covered))
        self.wake()

    async def start_again(self, link: Link) -> None:
        """Bring this connection to where the caller is. Returns early if it ends."""
        self.tried = link
        self._conclude_if_complete()
        await link.outbox.room()
        if self.outcome is None:
            self._start(link)
        while self._link is link and self._cancelling is None and not self._session.over:
            unsent = self._recording.unsent
            if unsent < (1 if self.finished else limits.MIN_FRAME_BYTES):
                if self.finished:
                    self._session.post(Finalise(*self._ids))
                return
            if link.outbox.full:
                await link.outbox.room()
            else:
                self._post_audio()
                self.wake()

    # --- Inside ------------------------------------------------------------------------------

    @property
    def _taken(self) -> bool:
        """Whether the server takes audio of it now, and no one else's is being sent again."""
        return self._session.online and self._link is self._session.link

    def _start(self, link: Link) -> None:
        self.tried = self._link = link
        self._heard.floor = self._recording.begin
        self._session.post(Start(*self._ids))

    def _post_audio(self) -> None:
        if audio := self._recording.take(limits.MAX_FRAME_BYTES):
            ids = () if self._session.binary else self._ids
            self._session.post(Append(audio, *ids))

    async def _turn(self) -> bool:
        """Wait until a frame may be posted; False if there is no connection and this may be kept.

        The caller posts before its next checkpoint.
        """
        while True:
            self._check_taking()
            if not self._taken and self._recording.unsent < self._recording.keep:
                return False
            if not self._taken:
                await self._waiting.park()
            elif self._session.link.outbox.full:
                await self._session.link.outbox.room()
            else:
                return True

    def _conclude_if_complete(self) -> None:
        """Perhaps the server has finalised, by itself, all that there is."""
        if self.finished and self._heard.finalised and not self._recording.unsent:
            self._conclude(self._heard.so_far())

    def _conclude(self, outcome: Outcome) -> None:
        self.outcome = self.outcome or outcome
        self._recording.clear()
        self._session.release(self)
        self.wake()

    def _check_taking(self) -> None:
        if self.outcome is not None:
            raise ending_error(self.request_id, self.outcome)
        self._session.check()
        if self.finished:
            raise trio.ClosedResourceError("finish() was called: no more audio is taken")
        if self._session.active is not self:
            raise UtteranceCancelled(self.request_id, "superseded")
