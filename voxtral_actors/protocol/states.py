"""The states of a session and the table of its transitions.

`TRANSITIONS[input][state]` is the next state. A pair that is not in the table cannot happen: inputs
are classified by what a message is about (`session.py`), so `FINAL`, say, exists only while an
utterance is active. If it happens all the same, the fault is ours.

`ENDED` is final: whatever can still arrive there is ignored.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable


class _Key(enum.Enum):
    """A key of the table, which each message asks. `Enum` has a hash made of Python."""

    __hash__ = object.__hash__


class State(_Key):
    """Which utterances a connection has."""

    IDLE = "none"
    ACTIVE = "one takes audio"
    FINALISING = "tails only"
    OVERLAPPED = "one takes audio, and there are tails"
    ENDED = "none, and no more come"


class Input(_Key):
    """What a message is about."""

    START = "a new utterance"
    START_REFUSED = (
        "a new utterance that the server cannot take; what is active is over all the same"
    )
    START_REPEATED = "a new utterance under a request id that is in use"
    AUDIO = "audio for the active utterance"
    FINAL = "the end of the active utterance's audio"
    STRAY = "audio or its end for an utterance that is not active"
    LATE = "the same, for one that the server ended while audio was on its way"
    CANCEL = "cancel, of the active utterance if there is one"
    CANCEL_OVER = "cancel that names an utterance which is over: it crossed its last event"
    ACTIVE_ENDS = "the engine ended the active utterance"
    TAIL_ENDS = "a tail ended or is cancelled, others remain"
    LAST_TAIL_ENDS = "the only tail ended or is cancelled"
    TEXT = "the engine heard something in a living utterance"
    STALE = "the engine speaks of an utterance that is over"
    UPDATE = "session.update"
    PING = "ping"
    BAD = "a message that cannot be acted on"
    STOP_STARTS = "the server drains"
    WIND_DOWN = "the server takes no more audio"
    CLOSE = "the connection ends"


_I, _A, _F, _O, _E = State
_LIVING = (_I, _A, _F, _O)


def _stay(states: Iterable[State] = (*_LIVING, _E)) -> dict[State, State]:
    return {state: state for state in states}


TRANSITIONS: dict[Input, dict[State, State]] = {
    Input.START: {_I: _A, _A: _A, _F: _O, _O: _O, _E: _E},
    Input.FINAL: {_A: _F, _O: _F},
    Input.CANCEL: {_I: _I, _A: _I, _F: _F, _O: _F, _E: _E},
    Input.CANCEL_OVER: _stay(),
    Input.ACTIVE_ENDS: {_A: _I, _O: _F},
    Input.TAIL_ENDS: {_F: _F, _O: _O},
    Input.LAST_TAIL_ENDS: {_F: _I, _O: _A},
    Input.TEXT: _stay((_A, _F, _O)),
    Input.WIND_DOWN: {_I: _I, _A: _F, _F: _F, _O: _F, _E: _E},
    Input.CLOSE: dict.fromkeys((*_LIVING, _E), _E),
    Input.AUDIO: _stay((_A, _O)),
    Input.STRAY: _stay(),
    Input.LATE: _stay(),
    Input.START_REFUSED: {_I: _I, _A: _I, _F: _F, _O: _F, _E: _E},
    Input.START_REPEATED: _stay((_A, _F, _O)),
    Input.UPDATE: _stay(),
    Input.PING: _stay(),
    Input.BAD: _stay(),
    Input.STOP_STARTS: _stay(),
    Input.STALE: _stay(),
}
