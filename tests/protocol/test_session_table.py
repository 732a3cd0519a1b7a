"""Every pair of state and input, driven through a real session by what can really be said to it.

The session is walked exhaustively. From each situation that it can get into, everything is said
that anybody could say: about the active utterance, a tail, the one that the server ended last, one
that is over, one that never was. Situations that differ only in names and numbers count as one, so
the walk ends. A pair of the table must be met on the way and lead where the table says; a pair that
is not in the table must not be met at all.
"""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from collections.abc import Iterator

import attrs
import pytest

from tests.protocol.ledger import Ledger
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.commands import (
    Append,
    BadMessage,
    Cancel,
    End,
    Finalise,
    Ping,
    SessionUpdate,
    Start,
    TooBig,
)
from voxtral_actors.protocol.session import HANDLERS, Session, SessionBugError
from voxtral_actors.protocol.signals import (
    Broke,
    Closing,
    Completed,
    Heard,
    Message,
    StopStarts,
    WindDown,
)
from voxtral_actors.protocol.states import TRANSITIONS, Input, State

SAMPLE = b"\1\0"
PAIRS = [
    pytest.param(state, what, id=f"{state.name}-{what.name}") for state in State for what in Input
]


@attrs.frozen
class Step:
    """One step of the walk; `history` is what was said before."""

    history: tuple[Message, ...]
    message: Message
    state: State
    effects: int


def new_session() -> Session:
    return Session("sess-1", "model", max_bad=0)


def over(ledger: Ledger) -> set[str]:
    """Names of utterances that have ended, and perhaps live again."""
    return {stream.request_id for stream in ledger.streams.values() if stream.terminal}


def everything(ledger: Ledger) -> Iterator[Message]:
    """All that can be said now, up to names and numbers."""
    session = ledger.session
    living = {stream.request_id for stream in ledger.alive().values()}
    spare = f"u{session.utterances + 1}"
    names = living | {spare} | set(sorted(over(ledger) - living)[-1:])
    if session._late is not None:
        names.add(session._late)
    for name in sorted(names):
        yield Start("s", name)
        yield Finalise("s", name)
        yield Append(SAMPLE, "s", name)
        yield Cancel("s", name)
    yield Append(SAMPLE)
    yield SessionUpdate("s", "r", "model")
    yield SessionUpdate("s", "r", "another")
    yield Ping("s", "r")
    yield BadMessage("invalid_message", "invalid_json", "no")
    yield BadMessage("rate_limited", "message_rate_limited", "no", {}, "s", spare, was_start=True)
    yield End("s", "r")
    yield TooBig(1024)
    for key in range(session.utterances + 2):  # 0 and the last one were never opened
        yield Heard(key, "word", 1)
        yield Heard(key, "", 1)
        yield Completed(key, 1, 1)
        yield Broke(key, "engine_unavailable", "engine_lost", "gone")
    yield StopStarts()
    yield WindDown()
    yield from (Closing(close) for close in Close)


def situation(ledger: Ledger) -> tuple[object, ...]:
    """What of a session decides about inputs."""
    session = ledger.session
    living = {stream.request_id for stream in ledger.alive().values()}
    late = session._late and ("living" if session._late in living else "over")
    return (
        session.state,
        len(session.tails),
        late,
        session._accepting,
        bool(over(ledger) - living),
        session.active is not None and session.active.request_id in over(ledger),
    )


@functools.cache
def walk() -> dict[tuple[State, Input], list[Step]]:
    """Say everything in every situation; the ledger objects if a step breaks a rule."""
    found: dict[tuple[State, Input], list[Step]] = defaultdict(list)
    start = Ledger(new_session())
    seen = {situation(start)}
    todo: list[tuple[Ledger, tuple[Message, ...]]] = [(start, ())]
    for ledger, history in todo:
        for message in everything(ledger):
            after = copy.deepcopy(ledger)
            what = after.session._classify(message)
            effects = after.step(message)
            pair = ledger.session.state, what
            found[pair].append(Step(history, message, after.session.state, len(effects)))
            if (new := situation(after)) not in seen:
                seen.add(new)
                todo.append((after, (*history, message)))
    return found


@pytest.mark.parametrize(("state", "what"), PAIRS)
def test_table(state: State, what: Input) -> None:
    """A pair of the table is met, and leads where it says; another pair is never met."""
    steps = walk().get((state, what), [])
    if state in TRANSITIONS[what]:
        assert steps, "nothing that can be said is this input in this state"
        assert [step for step in steps if step.state is not TRANSITIONS[what][state]] == []
    else:
        assert steps == []


@pytest.mark.parametrize(("state", "what"), PAIRS)
def test_what_cannot_happen_is_our_bug_and_changes_nothing(state: State, what: Input) -> None:
    class Confused(Session):
        def _classify(self, message: Message) -> Input:
            return what

    if state in TRANSITIONS[what]:
        return
    session = Confused("sess-1", "model", max_bad=0)
    session.state = state
    with pytest.raises(SessionBugError, match=rf"{what}.*{state}.*Ping"):
        session.step(Ping("s", "r"))
    assert session.state is state


def test_p11_nothing_comes_of_anything_once_the_session_has_ended() -> None:
    steps = [step for (state, _), found in walk().items() if state is State.ENDED for step in found]

    assert steps
    assert [step for step in steps if step.effects or step.state is not State.ENDED] == []


def test_p11_every_close_ends_whatever_is_alive() -> None:
    """The ledger checks that nothing is alive after a Close; here, that all of them were tried."""
    closed = {
        (state, step.message.close)
        for (state, what), found in walk().items()
        if what is Input.CLOSE
        for step in found
        if isinstance(step.message, Closing)
    }

    assert closed == {(state, close) for state in State for close in Close}


def test_every_input_has_a_row_and_a_handler() -> None:
    assert TRANSITIONS.keys() == set(Input)
    assert HANDLERS.keys() == set(Input)
