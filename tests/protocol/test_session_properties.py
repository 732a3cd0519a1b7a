"""Whatever is said to a session, in whatever order: the ledger finds no fault with what it does."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.protocol import strategies
from tests.protocol.ledger import Ledger
from voxtral_actors.client.codec import decode_event
from voxtral_actors.protocol import commands, events, signals
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.codec import decode, encode
from voxtral_actors.protocol.effects import Effect, Emit, Feed
from voxtral_actors.protocol.session import Session

MAX_BYTES = 4096


class Conversation(RuleBasedStateMachine):
    """A client, an engine and a server that say anything at any time."""

    @initialize(max_bad=st.sampled_from((0, 3, 20)), peace=st.integers(0, 30))
    def begin(self, max_bad: int, peace: int) -> None:
        """Nobody ends the connection in the first `peace` steps, so that more of them matter."""
        self.peace = peace
        self.max_bad = max_bad
        self.ledger = Ledger(Session("sess-1", strategies.MODEL, max_bad=max_bad))

    def say(self, message: signals.Message) -> list[Effect]:
        self.peace -= 1
        todo = self.ledger.step(message)
        for effect in todo:
            if isinstance(effect, Emit):
                assert decode_event(encode(effect.event)) == effect.event
        return todo

    @rule(message=strategies.pooled_commands)
    def client(self, message: signals.Message) -> None:
        self.say(message)

    @rule(name=strategies.request_ids, audio=strategies.pcm, final=st.booleans())
    def utterance(self, name: str, audio: bytes, final: bool) -> None:
        """What most of a real conversation is made of."""
        self.say(commands.Start("me", name))
        self.say(commands.Append(audio, "me", name))
        if final:
            self.say(commands.Finalise("me", name))

    @rule(frame=strategies.frames)
    def frame(self, frame: str | bytes) -> None:
        self.say(decode(frame, MAX_BYTES))

    @rule(message=strategies.bad_messages)
    def bad(self, message: commands.BadMessage) -> None:
        self.say(message)

    @rule(data=st.data())
    def engine(self, data: st.DataObject) -> None:
        keys = st.integers(0, len(self.ledger.streams) + 1)
        if alive := self.ledger.alive():
            keys = st.sampled_from(sorted(alive)) | keys
        self.say(data.draw(strategies.engine_words(keys)))

    @precondition(lambda self: self.peace < 0)
    @rule(message=strategies.wishes)
    def server(self, message: signals.Message) -> None:
        self.say(message)

    @precondition(lambda self: self.peace < 0)
    @rule(message=strategies.endings)
    def ending(self, message: signals.Message) -> None:
        self.say(message)
        assert self.ledger.closed

    @invariant()
    def too_many_bad_messages_end_the_session(self) -> None:
        if self.max_bad and self.ledger.session.bad_messages >= self.max_bad:
            assert self.ledger.closed

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.say(signals.Closing(Close.BUG))
            assert self.ledger.closed
            assert not self.ledger.alive()


def test_p11_any_conversation_keeps_the_rules() -> None:
    run_state_machine_as_test(
        Conversation, settings=settings(max_examples=40, stateful_step_count=40)
    )


@given(st.lists(strategies.pcm, min_size=1, max_size=6), st.data())
def test_any_split_of_the_audio_gives_the_engine_the_same_bytes(
    pieces: list[bytes], data: st.DataObject
) -> None:
    """In frames of any size, as text or as binary."""
    audio = b"".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(audio) // 2), max_size=5).map(sorted))
    bounds = [0, *(2 * cut for cut in cuts), len(audio)]
    session = Session("sess-1", strategies.MODEL, max_bad=0)
    session.step(commands.Start("me", "a"))
    fed = b""
    for start, end in itertools.pairwise(bounds):
        ids = ("me", "a") if data.draw(st.booleans()) else (None, None)
        if piece := audio[start:end]:
            (feed,) = session.step(commands.Append(piece, *ids))
            assert isinstance(feed, Feed)
            fed += feed.audio
    assert fed == audio
    assert session.active is not None
    assert session.active.samples == len(audio) // 2


@given(st.lists(st.text(max_size=5), max_size=8))
def test_joined_deltas_are_the_text(words: list[str]) -> None:
    session = Session("sess-1", strategies.MODEL, max_bad=0)
    session.step(commands.Start("me", "a"))
    said = [e for word in words for e in session.step(signals.Heard(1, word, 0))]
    deltas = [e.event.delta for e in said if isinstance(e, Emit) and type(e.event) is events.Delta]
    _, done = session.step(signals.Completed(1, 0, 0))

    assert isinstance(done, Emit)
    assert isinstance(done.event, events.Done)
    assert deltas == [word for word in words if word]
    assert done.event.text == "".join(deltas)
