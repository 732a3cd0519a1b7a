"""An independent account of one session, which objects to every step that breaks a rule.

`Ledger.step` passes a message to a real `Session` and checks what comes back:

1. The state says exactly which utterances are alive, and so do the streams that are open.
2. A stream is opened once, under a new key; fed and finished only while it is open and, for audio,
   not finished; let go of once, and its utterance's terminal event follows at once.
3. Deltas belong to a stream that is open, and joined they are the text of `Done`.
4. The Close is the last effect, after a `session_end` or an `error` that fits it; then nothing is
   open, and nothing more comes.

An utterance and its stream are the same thing here: both are known by the key.
"""

from __future__ import annotations

from typing import TypeAlias, assert_never

import attrs

from voxtral_actors.limits import BYTES_PER_SAMPLE, MAX_TAILS, SAMPLE_RATE
from voxtral_actors.protocol import commands, effects, events, signals
from voxtral_actors.protocol.session import Session
from voxtral_actors.protocol.states import State

Terminal: TypeAlias = events.Done | events.Cancelled | events.Error


@attrs.define
class Stream:
    """What became of one `Open`."""

    session_id: str
    request_id: str
    audio: bytes = b""
    finished: bool = False
    deltas: list[str] = attrs.field(factory=list)
    terminal: Terminal | None = None

    def owns(self, event: events.Event) -> bool:
        return (event.session_id, event.request_id) == (self.session_id, self.request_id)


@attrs.define
class Ledger:
    session: Session
    streams: dict[int, Stream] = attrs.field(factory=dict)
    closed: bool = False

    def step(self, message: signals.Message) -> list[effects.Effect]:
        was_closed = self.closed
        todo = self.session.step(message)
        assert not (was_closed and todo), "effects after the end"
        rest = iter(todo)
        for effect in rest:
            assert not self.closed, "effects after the Close"
            match effect:
                case effects.Open(key=key):
                    self._open(key, effect.label, message)
                case effects.Feed(key=key, audio=audio):
                    assert isinstance(message, commands.Append)
                    assert audio == message.audio
                    assert not self._running(key).finished, "audio after the last"
                    self._running(key).audio += audio
                case effects.Finish(key=key):
                    assert not self._running(key).finished, "finished twice"
                    self._running(key).finished = True
                case effects.Abort(key=key):
                    self._end(key, next(rest, None))
                case effects.Emit(event=event):
                    self._said(event, message)
                case effects.CloseConnection(close=close):
                    last_words = [e for e in todo if isinstance(e, effects.Emit)][-1].event
                    if close.spec.error is None:
                        assert isinstance(last_words, events.SessionEnd)
                        assert last_words.reason == close.spec.slug
                    else:
                        assert isinstance(last_words, events.Error)
                        assert last_words.code == close.spec.error
                    self.closed = True
                case _:
                    assert_never(effect)
        self._agree()
        return todo

    def alive(self) -> dict[int, Stream]:
        return {key: stream for key, stream in self.streams.items() if stream.terminal is None}

    def _running(self, key: int) -> Stream:
        stream = self.streams[key]
        assert stream.terminal is None, "a stream is used after it was let go of"
        return stream

    def _open(self, key: int, label: str, message: signals.Message) -> None:
        assert isinstance(message, commands.Start)
        assert key not in self.streams, "a key is used twice"
        assert all(s.request_id != message.request_id for s in self.alive().values())
        assert all(s.finished for s in self.alive().values()), "two utterances take audio"
        self.streams[key] = Stream(message.session_id, message.request_id)
        assert label == f"{message.session_id}/{message.request_id}"

    def _end(self, key: int, following: effects.Effect | None) -> None:
        assert isinstance(following, effects.Emit), "the terminal event follows the Abort"
        event = following.event
        assert isinstance(event, events.Done | events.Cancelled | events.Error)
        stream = self._running(key)
        assert stream.owns(event)
        if isinstance(event, events.Done):
            assert event.text == "".join(stream.deltas)
            assert event.usage.audio_seconds == len(stream.audio) / BYTES_PER_SAMPLE / SAMPLE_RATE
        stream.terminal = event

    def _said(self, event: events.Event, message: signals.Message) -> None:
        """An event that ends no utterance."""
        match event:
            case events.Delta():
                assert isinstance(message, signals.Heard)
                stream = self._running(message.key)
                assert stream.owns(event)
                assert event.delta, "an empty delta"
                assert event.audio_ms * SAMPLE_RATE <= len(stream.audio) // BYTES_PER_SAMPLE * 1000
                stream.deltas.append(event.delta)
            case events.Cancelled():
                assert isinstance(message, commands.Cancel)
                assert event.reason == "no_active_request"
                assert all(s.request_id != event.request_id for s in self.alive().values())
            case events.Error():
                assert event.code in events.ERROR_CODES
                assert event.reason_code or isinstance(message, commands.BadMessage)
            case events.Pong() | events.SessionUpdated() | events.SessionEnd():
                pass
            case events.Done() | events.SessionCreated():
                raise AssertionError(f"{event} out of nowhere")
            case _:
                assert_never(event)

    def _agree(self) -> None:
        session = self.session
        active = () if session.active is None else (session.active.key,)
        alive = self.alive()
        assert {*active, *session.tails} == alive.keys()
        assert all(alive[key].finished == (key in session.tails) for key in alive)
        assert len(session.tails) <= MAX_TAILS
        assert session.quiet == (not alive)
        assert session.utterances == len(self.streams)
        expected = {
            (False, False): State.IDLE,
            (True, False): State.ACTIVE,
            (False, True): State.FINALISING,
            (True, True): State.OVERLAPPED,
        }[session.active is not None, bool(session.tails)]
        assert session.state is (State.ENDED if self.closed else expected)
        assert not (self.closed and alive)


class Talk:
    """A session under the eyes of a ledger, after some messages."""

    def __init__(self, *messages: signals.Message, max_bad: int = 0) -> None:
        self.session = Session("sess-1", "voxtral", max_bad=max_bad)
        self._ledger = Ledger(self.session)
        self.hear(*messages)

    def hear(self, *messages: signals.Message) -> list[effects.Effect]:
        """Take these messages; returns the effects of the last one."""
        todo: list[effects.Effect] = []
        for message in messages:
            todo = self._ledger.step(message)
        return todo

    def answer(self, *messages: signals.Message) -> events.Event:
        """The event that is the one effect of the last message."""
        (effect,) = self.hear(*messages)
        assert isinstance(effect, effects.Emit)
        return effect.event

    def error(self, *messages: signals.Message) -> events.Error:
        event = self.answer(*messages)
        assert isinstance(event, events.Error)
        return event
