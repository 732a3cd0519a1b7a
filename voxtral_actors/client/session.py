"""A session: one connection, its utterances, and the requests that are waiting for an answer.

At most one utterance is *active*, that is, takes audio; others may still be waiting for their last
text. Starting one while another is active is barge-in: the server cancels the other one, and its
`send` raises `UtteranceCancelled` here at once.
"""

from __future__ import annotations

from uuid import uuid4

import attrs
import trio

from voxtral_actors.client import limits
from voxtral_actors.client.codec import encode_command
from voxtral_actors.client.errors import NoAnswer, RequestRefused
from voxtral_actors.client.link import Link
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
    """What a session holds now. All but `unknown_events` are 0 when nothing is going on."""

    utterances: int
    """Utterances whose block has not been left."""
    queued_frames: int
    waiting_requests: int
    unknown_events: int
    """Events of types that this client does not know; they are ignored."""


@attrs.define(eq=False)
class _Request:
    answered: trio.Event = attrs.field(factory=trio.Event)
    answer: Event | None = None


class Session:
    """Made by `connect`. `created` is the server's `session.created`."""

    def __init__(
        self,
        link: Link,
        created: SessionCreated,
        session_id: str,
        *,
        binary: bool = True,
        end_timeout: float = limits.END_S,
    ) -> None:
        self.created = created
        self.session_id = session_id
        self.binary = binary
        self.link = link
        self._end_timeout = end_timeout
        self.active: Utterance | None = None
        self._utterances: dict[str, Utterance] = {}
        self._requests: dict[str, _Request] = {}
        link.on_event = self._deliver
        link.on_end = self._ended

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
        self.link.check()
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
        if link.ended.is_set():
            await trio.lowlevel.checkpoint()
            return
        if not link.closing:
            self.post(End(self.session_id, _fresh("end")))
            link.closing = True
            self._ended()
        with trio.move_on_after(self._end_timeout):
            await link.ended.wait()
        await link.hang_up()

    def statistics(self) -> Statistics:
        return Statistics(
            len(self._utterances),
            len(self.link.outbox),
            len(self._requests),
            self.link.unknown_events,
        )

    # --- For the utterances ------------------------------------------------------------------

    def post(self, command: Command) -> None:
        self.link.outbox.post(encode_command(command))

    def begin(self, utterance: Utterance) -> None:
        if utterance.request_id in self._utterances:
            raise ValueError(f"request_id {utterance.request_id!r} is in use in this session")
        self._utterances[utterance.request_id] = utterance
        self.active = utterance

    def release(self, utterance: Utterance) -> None:
        """It takes no more audio."""
        if self.active is utterance:
            self.active = None

    def forget(self, utterance: Utterance) -> None:
        self.release(utterance)
        self._utterances.pop(utterance.request_id, None)

    # --- For the link ------------------------------------------------------------------------

    def _deliver(self, event: Event) -> None:
        request = self._requests.get(event.request_id)
        utterance = self._utterances.get(event.request_id)
        match event:
            case Delta() | Done() | Cancelled() | Error() if utterance is not None:
                utterance.deliver(event)
            case Pong() | SessionUpdated() | Error() if request is not None:
                request.answer = event
                request.answered.set()
            case _:
                pass  # about an utterance that was left, or about the connection: the link's

    def _ended(self) -> None:
        for utterance in self._utterances.values():
            utterance.wake()
        for request in self._requests.values():
            request.answered.set()

    async def _ask(self, command: Ping | SessionUpdate) -> None:
        self.link.check()
        request = self._requests[command.request_id] = _Request()
        try:
            self.post(command)
            with trio.move_on_after(limits.ANSWER_S):
                await request.answered.wait()
        finally:
            del self._requests[command.request_id]
        match request.answer:
            case None:
                self.link.check()
                raise NoAnswer(f"{command.request_id} was not answered in {limits.ANSWER_S:g} s")
            case Error() as error:
                raise RequestRefused(error.code, error.reason_code, error.message)
            case _:
                pass


def _fresh(kind: str) -> str:
    return f"{kind}-{uuid4().hex[:12]}"
