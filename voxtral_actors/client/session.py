"""A session: one connection, its utterances, and the requests that are waiting for an answer.

At most one utterance is *active*, that is, takes audio; others may still be waiting for their last
text. Starting one while another is active is barge-in: the server cancels the other one, and its
`send` raises `UtteranceCancelled` here at once.

A session outlives its connection, where `connect` was told so: the keeper (`reconnecting`) attaches
the next one, and `catch_up` starts on it, in the order in which they began, the utterances that are
not over. Until that is done the session is not `online`, and what is sent is only kept.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import attrs
import trio

from voxtral_actors.client import limits
from voxtral_actors.client.codec import encode_command
from voxtral_actors.client.errors import ClientError, NoAnswer, RequestRefused
from voxtral_actors.client.link import Link
from voxtral_actors.client.requests import Requests
from voxtral_actors.client.utterance import Utterance
from voxtral_actors.protocol.commands import Command, End, Ping, SessionUpdate
from voxtral_actors.protocol.events import (
    Cancelled,
    Delta,
    Done,
    Error,
    Event,
    Pong,
    SessionCreated,
    SessionUpdated,
)


@attrs.frozen
class Statistics:
    """What a session holds now. All but the last two are 0 when nothing is going on."""

    utterances: int
    """Utterances whose block has not been left."""
    queued_frames: int
    waiting_requests: int
    unknown_events: int
    """Events of types that this client does not know; they are ignored."""
    reconnects: int
    """Connections after the first one."""


class Session:
    """Made by `connect`. `created` is the `session.created` of the present connection."""

    def __init__(
        self,
        link: Link,
        created: SessionCreated,
        session_id: str,
        nursery: trio.Nursery,
        *,
        binary: bool = True,
        end_timeout: float = limits.END_S,
        keep_audio_s: float | None = None,
    ) -> None:
        self.session_id = session_id
        self.binary = binary
        self.reconnects = keep_audio_s is not None
        self.keep_audio_s = keep_audio_s or 0.0
        self.failure: ClientError | None = None
        """Why the session is lost for good."""
        self.closing = False
        self.active: Utterance | None = None
        self._nursery = nursery
        self._end_timeout = end_timeout
        self._utterances: dict[str, Utterance] = {}
        self._requests = Requests()
        self._changed = trio.lowlevel.ParkingLot()
        self._connections = 0
        self.attach(link, created)
        self._caught_up = True

    @property
    def over(self) -> bool:
        """Whether it was ended, or is lost for good."""
        return self.closing or self.failure is not None

    @property
    def online(self) -> bool:
        """Whether there is a connection, and it is where the caller is."""
        return self._caught_up and not self.link.ended.is_set()

    # --- For the caller ----------------------------------------------------------------------

    def utterance(self, request_id: str | None = None) -> Utterance:
        """A new utterance, started by entering it with `async with`.

        Leaving the block before the last event cancels it on the server.
        """
        return Utterance(self, request_id or _fresh("utt"))

    async def cancel(self, reason: str | None = None) -> None:
        """Cancel every utterance that is not over, and wait until they are.

        Raises:
            NoAnswer, RequestRefused, ServerClosed: see `Utterance.cancel`.
        """
        self.check()
        await trio.lowlevel.checkpoint()
        # Tails first: see Utterance.abandon.
        for utterance in sorted(self._utterances.values(), key=lambda one: not one.finished):
            await utterance.cancel(reason)

    async def ping(self) -> float:
        """The seconds until the server's actors answered.

        Raises:
            NoAnswer, ServerClosed: it did not.
        """
        sent = trio.current_time()
        await self._ask(Ping(self.session_id, _fresh("ping")))
        return trio.current_time() - sent

    async def update(self, model: str) -> None:
        """Ask for a model; only the served one is accepted.

        Raises:
            RequestRefused: it is not the served one.
            NoAnswer, ServerClosed: there was no answer.
        """
        await self._ask(SessionUpdate(self.session_id, _fresh("update"), model))

    async def end(self) -> None:
        """End the session in good order; what is active is cancelled. Harmless if it is over."""
        link = self.link
        if not self.closing:
            if not link.ended.is_set():
                self.post(End(self.session_id, _fresh("end")))
                link.closing = True
            self.close()
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(self._end_timeout):
            await link.ended.wait()
        await link.hang_up()

    def statistics(self) -> Statistics:
        return Statistics(
            len(self._utterances),
            len(self.link.outbox),
            len(self._requests),
            self.link.unknown_events,
            self._connections - 1,
        )

    # --- For the utterances ------------------------------------------------------------------

    def check(self) -> None:
        """Raise why the session is of no use any more, if that is so."""
        if self.failure is not None:
            raise self.failure
        if self.closing:
            raise trio.ClosedResourceError("the session was ended")

    def post(self, command: Command) -> None:
        self.link.outbox.post(encode_command(command))

    def begin(self, utterance: Utterance) -> None:
        if utterance.request_id in self._utterances:
            raise ValueError(f"request_id {utterance.request_id!r} is in use in this session")
        self._utterances[utterance.request_id] = utterance
        old, self.active = self.active, utterance
        if old is not None and not self.online:
            old.connection_lost()  # it will not be started again: it is not the active one any more
        self._changed.unpark_all()

    def release(self, utterance: Utterance) -> None:
        """It takes no more audio."""
        if self.active is utterance:
            self.active = None

    def forget(self, utterance: Utterance) -> None:
        self.release(utterance)
        self._utterances.pop(utterance.request_id, None)

    def expect_close(self, otherwise: Callable[[], None]) -> None:
        """The server is about to close; call `otherwise` if that does not come true."""

        async def wait(link: Link) -> None:
            with trio.move_on_after(limits.LEAVING_S):
                await link.ended.wait()
            if not link.ended.is_set():
                otherwise()

        self._nursery.start_soon(wait, self.link)

    # --- For the keeper and `connect` --------------------------------------------------------

    def attach(self, link: Link, created: SessionCreated) -> None:
        """Go on with this connection; `catch_up` comes next."""
        self.link = link
        self.created = created
        self._connections += 1
        self._caught_up = False
        link.on_event = self._deliver
        link.on_end = self._lost
        if link.ended.is_set():
            self._lost()

    async def catch_up(self) -> None:
        """Start on this connection what is not over. Returns early if it ends."""
        link = self.link
        while not (link.ended.is_set() or self.over):
            behind = (u for u in self._utterances.values() if u.outcome is None)
            if (utterance := next((u for u in behind if u.tried is not link), None)) is None:
                self._caught_up = True
                self._wake()
                return
            await utterance.start_again(link)

    async def needed(self) -> None:
        """Wait until somebody has use for a connection."""
        while not (self._utterances or self._requests or self.over):
            await self._changed.park()

    def fail(self, error: ClientError) -> None:
        """The session is lost for good."""
        if not self.over:
            self.failure = error
        self._wake()

    def close(self) -> None:
        """The caller has ended it."""
        self.closing = True
        self._wake()

    # --- For the link ------------------------------------------------------------------------

    def _deliver(self, event: Event) -> None:
        utterance = self._utterances.get(event.request_id)
        match event:
            case Delta() | Done() | Cancelled() | Error() if utterance is not None:
                utterance.deliver(event)
            case Pong() | SessionUpdated() | Error():
                self._requests.answer(event)
            case _:
                pass  # about an utterance that was left, or about the connection: the link's

    def _lost(self) -> None:
        error = self.link.failure
        if self.over or error is None:
            self._wake()
        elif not (self.reconnects and error.retry):
            self.fail(error)
        else:
            self._caught_up = False
            self._requests.lost(error)
            for utterance in self._utterances.values():
                utterance.connection_lost()
            self._wake()

    def _wake(self) -> None:
        self._changed.unpark_all()
        for utterance in self._utterances.values():
            utterance.wake()
        if self.over:
            self._requests.end()

    async def _ask(self, command: Ping | SessionUpdate) -> None:
        self.check()
        request = self._requests.add(command.request_id)
        self._changed.unpark_all()
        try:
            with trio.move_on_after(limits.ANSWER_S):
                while not (self.online or self.over):
                    await self._changed.park()
                self.post(command)
                request.posted = True
                await request.answered.wait()
        finally:
            self._requests.remove(command.request_id)
        match request.answer:
            case None:
                self.check()
                raise NoAnswer(f"{command.request_id} was not answered in {limits.ANSWER_S:g} s")
            case Error() as error:
                raise RequestRefused(error.code, error.reason_code, error.message)
            case ClientError() as lost:
                raise lost
            case _:
                pass


def _fresh(kind: str) -> str:
    return f"{kind}-{uuid4().hex[:12]}"
