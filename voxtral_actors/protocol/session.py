"""The session of one connection: messages in, effects out.

Rules:

1. Everything that affects utterances goes through `Session.step`: the client's messages, what the
   engine says, and the wishes of the server (timers, drain). It is synchronous and does no I/O; it
   returns effects, and the bridge carries them out in order.
2. `states.TRANSITIONS` is the truth about states. A pair that is not in it cannot happen; if it
   does, that is our bug and `SessionBugError` names both.
3. Every utterance ends in exactly one terminal event (`Done`, `Cancelled`, `Error`), made in
   `Utterance.end` and nowhere else. After it nothing of that utterance is emitted: late engine
   events find no utterance under their key and become `STALE`.

How it works. At most one utterance is *active*, that is, takes audio. When the client finalises it,
it becomes a *tail* that waits for its last text, while a new one may already be active. Utterances
are known by a key that is never used twice, so that a client may use a request id again.

A message is first classified into an `Input` by what it is about (the active utterance, a tail, or
neither). The table says which state comes next, and the input's handler makes the effects; handlers
look at the utterances and never at the state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from voxtral_actors.limits import MAX_TAILS, RECENT_REQUESTS
from voxtral_actors.protocol import commands as say
from voxtral_actors.protocol import effects, events, signals
from voxtral_actors.protocol.closing import Close, farewell
from voxtral_actors.protocol.commands import BadMessage, misfit
from voxtral_actors.protocol.effects import Abort, Effect, Emit
from voxtral_actors.protocol.signals import Broke, Completed
from voxtral_actors.protocol.states import TRANSITIONS, Input, State
from voxtral_actors.protocol.utterance import Utterance


class SessionBugError(Exception):
    """An input that cannot happen in a state happened: the fault is ours, not the client's."""


class Session:
    """The utterances of one connection."""

    def __init__(self, session_id: str, model: str, *, max_bad: int) -> None:
        self.state = State.IDLE
        self.session_id = session_id
        self.active: Utterance | None = None
        self.tails: dict[int, Utterance] = {}
        self.bad_messages = 0
        self.utterances = 0
        self._model = model
        self._max_bad = max_bad
        self._accepting = True
        self._late: str | None = None  # the last request id that the server ended by itself
        self._recent: list[str] = []  # request ids that are over, the last ones

    @property
    def quiet(self) -> bool:
        """Whether no utterance is alive."""
        return self.active is None and not self.tails

    def step(self, message: signals.Message) -> list[Effect]:
        """Take one message; returns what has to be done about it, in order.

        Raises:
            SessionBugError: the message cannot happen in this state.
        """
        if self.state is not State.ENDED and (seen := getattr(message, "session_id", None)):
            self.session_id = seen
        what = self._classify(message)
        before = self.state
        try:
            self.state = TRANSITIONS[what][before]
        except KeyError:
            raise SessionBugError(f"{what} cannot happen in {before}: {message!r:.200}") from None
        if before is State.ENDED:
            return []
        todo = HANDLERS[what](self, message)
        if self._max_bad and self.bad_messages >= self._max_bad and self.state is not State.ENDED:
            todo += self.step(signals.Closing(Close.TOO_MANY_BAD))
        return todo

    # --- What a message is about -------------------------------------------------------------

    def _classify(self, message: signals.Message) -> Input:
        match message:
            case say.Append(request_id=None):
                if self.active is not None:
                    return Input.AUDIO
                return Input.STRAY if self._late is None else Input.LATE
            case say.Append(request_id=name) | say.Finalise(request_id=name):
                if self.active is not None and name == self.active.request_id:
                    return Input.AUDIO if isinstance(message, say.Append) else Input.FINAL
                return Input.LATE if name == self._late else Input.STRAY
            case signals.Heard(key=key) | Completed(key=key) | Broke(key=key):
                return self._about_stream(key, ends=not isinstance(message, signals.Heard))
            case say.Start():
                if any(living.request_id == message.request_id for living in self._living()):
                    return Input.START_REPEATED
                return Input.START if self._obstacle(message) is None else Input.START_REFUSED
            case say.Cancel(request_id=name):
                if self._tail_named(name):
                    return self._tail_end()
                is_active = self.active is not None and self.active.request_id == name
                return Input.CANCEL if is_active or name not in self._recent else Input.CANCEL_OVER
            case _:
                return PLAIN_INPUTS[type(message)]

    def _about_stream(self, key: int, *, ends: bool) -> Input:
        is_active = self.active is not None and self.active.key == key
        if not is_active and key not in self.tails:
            return Input.STALE
        if not ends:
            return Input.TEXT
        return Input.ACTIVE_ENDS if is_active else self._tail_end()

    def _tail_end(self) -> Input:
        return Input.LAST_TAIL_ENDS if len(self.tails) == 1 else Input.TAIL_ENDS

    def _tail_named(self, request_id: str) -> Utterance | None:
        if self.active is not None and self.active.request_id == request_id:
            return None
        return next((u for u in self.tails.values() if u.request_id == request_id), None)

    def _living(self) -> list[Utterance]:
        return [*self.tails.values(), *([self.active] if self.active else [])]

    def _obstacle(self, start: say.Start) -> BadMessage | None:
        """Why the server cannot take a new utterance, as the error that it earns."""
        if not self._accepting:
            what = "draining", "the connection is about to be closed and starts no new utterance"
            return misfit("shutting_down", *what, start)
        if len(self.tails) >= MAX_TAILS:
            what = "too_many_finalising", f"{MAX_TAILS} utterances are still being finalised"
            return misfit("server_at_capacity", *what, start)
        return None

    # --- Handlers, one an input --------------------------------------------------------------

    def _nothing(self, _: signals.Message) -> list[Effect]:
        return []

    def _start(self, message: say.Start) -> list[Effect]:
        todo = self._end(self.active, "superseded") if self.active else []
        self.utterances += 1
        self._late = None
        self.active = Utterance(self.utterances, message.session_id, message.request_id)
        return [*todo, effects.Open(self.active.key, f"{message.session_id}/{message.request_id}")]

    def _refuse_start(self, message: say.Start) -> list[Effect]:
        obstacle = self._obstacle(message)
        assert obstacle is not None  # noqa: S101 - it is why the input is START_REFUSED
        # Barge-in all the same: who starts something new is done with the old, and unnamed audio
        # that is on its way is not meant for it.
        todo = self._end(self.active, "superseded") if self.active else []
        self._late = message.request_id
        return [*todo, Emit(obstacle.error(self.session_id))]

    def _start_repeated(self, message: say.Start) -> list[Effect]:
        what = "request_id_in_use", "an utterance with this request_id is still running"
        return self._bad(misfit("invalid_payload", *what, message))

    def _feed(self, message: say.Append) -> list[Effect]:
        assert self.active is not None  # noqa: S101 - it is why the input is AUDIO
        self.active.samples += message.samples
        return [effects.Feed(self.active.key, message.audio)]

    def _finish(self, _: signals.Message) -> list[Effect]:
        if self.active is None:
            return []
        utterance, self.active = self.active, None
        self.tails[utterance.key] = utterance
        return [effects.Finish(utterance.key)]

    def _wind_down(self, message: signals.WindDown) -> list[Effect]:
        self._accepting = False
        if self.active is not None:
            self._late = self.active.request_id
        return self._finish(message)

    def _stray(self, message: say.Append | say.Finalise) -> list[Effect]:
        if self.active is None:
            what = "no_active_request", "no utterance is active; start one with a commit"
        else:
            what = "request_id_mismatch", f"the active utterance is {self.active.request_id!r}"
        return self._bad(misfit("invalid_payload", *what, message))

    def _cancel(self, message: say.Cancel) -> list[Effect]:
        if self.active is None:
            return self._cancel_nothing(message)
        return self._end(self.active, message.reason or "client_request")

    def _cancel_nothing(self, message: say.Cancel) -> list[Effect]:
        reason = "no_active_request"
        return [Emit(events.Cancelled(message.session_id, message.request_id, reason))]

    def _active_ends(self, message: Completed | Broke) -> list[Effect]:
        assert self.active is not None  # noqa: S101 - it is why the input is ACTIVE_ENDS
        self._late = self.active.request_id
        return self._end(self.active, message)

    def _tail_ends(self, message: Completed | Broke | say.Cancel) -> list[Effect]:
        if isinstance(message, say.Cancel):
            tail = self._tail_named(message.request_id)
            assert tail is not None  # noqa: S101 - it is why the input is TAIL_ENDS
            return self._end(tail, message.reason or "client_request")
        return self._end(self.tails[message.key], message)

    def _text(self, message: signals.Heard) -> list[Effect]:
        if not message.text:
            return []
        active = self.active
        utterance = active if active and active.key == message.key else self.tails[message.key]
        return [Emit(utterance.hear(message.text, message.consumed))]

    def _update(self, message: say.SessionUpdate) -> list[Effect]:
        ids = message.session_id, message.request_id
        if message.model in (None, self._model):
            return [Emit(events.SessionUpdated(*ids, self._model))]
        details: dict[str, object] = {"field": "payload.model", "allowed": [self._model]}
        problem = f"model {message.model!r} is not served; allowed: {self._model!r}"
        bad = BadMessage("invalid_payload", "unsupported_model", problem, details, *ids)
        return self._bad(bad)

    def _ping(self, message: say.Ping) -> list[Effect]:
        return [Emit(events.Pong(message.session_id, message.request_id))]

    def _bad(self, message: BadMessage) -> list[Effect]:
        self.bad_messages += 1
        if message.was_start:
            self._late = message.request_id
        return [Emit(message.error(self.session_id))]

    def _stop_starts(self, _: signals.StopStarts) -> list[Effect]:
        self._accepting = False
        return []

    def _close(self, message: signals.Closing | say.End | say.TooBig) -> list[Effect]:
        ids = self.session_id, events.CONNECTION_REQUEST_ID
        match message:
            case signals.Closing(close=close):
                pass
            case say.TooBig():
                close = Close.TOO_BIG
            case say.End():
                close, ids = Close.NORMAL, (message.session_id, message.request_id)
        todo: list[Effect] = []
        for utterance in self._living():
            todo += self._end(utterance, close.spec.slug)
        return [*todo, Emit(farewell(*ids, close)), effects.CloseConnection(close)]

    # --- Endings -----------------------------------------------------------------------------

    def _end(self, utterance: Utterance, why: Completed | Broke | str) -> list[Effect]:
        """Forget the utterance, let go of its stream, and emit its one terminal event."""
        if self.active is utterance:
            self.active = None
        self.tails.pop(utterance.key, None)
        self._recent = [*self._recent, utterance.request_id][-RECENT_REQUESTS:]
        return [Abort(utterance.key), Emit(utterance.end(why))]


PLAIN_INPUTS: Mapping[type, Input] = {
    BadMessage: Input.BAD,
    say.Ping: Input.PING,
    say.SessionUpdate: Input.UPDATE,
    say.End: Input.CLOSE,
    say.TooBig: Input.CLOSE,
    signals.Closing: Input.CLOSE,
    signals.StopStarts: Input.STOP_STARTS,
    signals.WindDown: Input.WIND_DOWN,
}

Handler: TypeAlias = Callable[[Session, Any], list[Effect]]
HANDLERS: Mapping[Input, Handler] = {
    Input.START: Session._start,
    Input.START_REFUSED: Session._refuse_start,
    Input.START_REPEATED: Session._start_repeated,
    Input.AUDIO: Session._feed,
    Input.FINAL: Session._finish,
    Input.STRAY: Session._stray,
    Input.LATE: Session._nothing,
    Input.CANCEL: Session._cancel,
    Input.CANCEL_OVER: Session._cancel_nothing,
    Input.ACTIVE_ENDS: Session._active_ends,
    Input.TAIL_ENDS: Session._tail_ends,
    Input.LAST_TAIL_ENDS: Session._tail_ends,
    Input.TEXT: Session._text,
    Input.STALE: Session._nothing,
    Input.UPDATE: Session._update,
    Input.PING: Session._ping,
    Input.BAD: Session._bad,
    Input.STOP_STARTS: Session._stop_starts,
    Input.WIND_DOWN: Session._wind_down,
    Input.CLOSE: Session._close,
}
