"""What a session answers, case by case; the table of its states is in `test_session_table.py`."""

from __future__ import annotations

import pytest

from tests.protocol.ledger import Talk
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.commands import (
    Append,
    BadMessage,
    Cancel,
    End,
    Finalise,
    Ping,
    Start,
    TooBig,
)
from voxtral_actors.protocol.effects import (
    Abort,
    CloseConnection,
    Emit,
    Feed,
    Finish,
    Open,
)
from voxtral_actors.protocol.events import (
    Cancelled,
    Delta,
    Done,
    Error,
    Event,
    Pong,
    SessionEnd,
    Usage,
)
from voxtral_actors.protocol.signals import (
    Broke,
    Closing,
    Completed,
    Heard,
    Message,
)

SAMPLES = b"\1\0\2\0"
START = Start("me", "a")
FINAL = Finalise("me", "a")
AUDIO = Append(SAMPLES, "me", "a")
BINARY = Append(SAMPLES)
BAD = BadMessage("invalid_message", "invalid_json", "no JSON")
MAX_BAD = 3


# --- An utterance ----------------------------------------------------------------------------


def test_an_utterance_from_start_to_done() -> None:
    talk = Talk()

    assert talk.hear(START) == [Open(1, "me/a")]
    assert talk.hear(AUDIO) == [Feed(1, SAMPLES)]
    assert talk.hear(BINARY) == [Feed(1, SAMPLES)]
    assert talk.hear(Heard(1, "one ", 2)) == [Emit(Delta("me", "a", "one ", 0))]
    assert talk.hear(FINAL) == [Finish(1)]
    assert talk.hear(Heard(1, "two", 4)) == [Emit(Delta("me", "a", "two", 0))]
    assert talk.hear(Completed(1, 5, 7)) == [
        Abort(1),
        Emit(Done("me", "a", "one two", Usage(5, 7, 12, 4 / 16000))),
    ]
    assert talk.session.quiet


def test_audio_ms_is_what_the_engine_consumed_of_what_was_sent() -> None:
    """Engines pad: what they consume beyond the audio is not the utterance's."""
    talk = Talk(START, Append(bytes(3200), "me", "a"))

    assert talk.answer(Heard(1, "x", 800)) == Delta("me", "a", "x", 50)
    assert talk.answer(Heard(1, "x", 1600)) == Delta("me", "a", "x", 100)
    assert talk.answer(Heard(1, "x", 99999)) == Delta("me", "a", "x", 100)


def test_progress_without_text_says_nothing() -> None:
    assert Talk(START, AUDIO).hear(Heard(1, "", 2)) == []


def test_a_start_during_a_tail_lets_both_finish() -> None:
    talk = Talk(START, AUDIO, FINAL)

    assert talk.hear(Start("me", "b")) == [Open(2, "me/b")]
    assert talk.hear(BINARY) == [Feed(2, SAMPLES)]
    assert talk.answer(Heard(1, "old", 2)) == Delta("me", "a", "old", 0)
    assert talk.answer(Heard(2, "new", 2)) == Delta("me", "b", "new", 0)
    assert talk.hear(Completed(1, 0, 0))[-1] == Emit(
        Done("me", "a", "old", Usage(0, 0, 0, 2 / 16000))
    )
    assert talk.hear(Finalise("me", "b")) == [Finish(2)]


def test_events_echo_the_session_id_of_the_start() -> None:
    talk = Talk(Start("first", "a"), Ping("second", "p"))

    assert talk.answer(Heard(1, "x", 0)) == Delta("first", "a", "x", 0)


def test_the_servers_own_session_id_until_the_client_names_one() -> None:
    talk = Talk()
    assert talk.answer(BAD).session_id == "sess-1"
    assert talk.answer(Ping("me", "p")) == Pong("me", "p")
    assert (talk.answer(BAD).session_id, talk.answer(BAD).request_id) == ("me", "connection")


# --- One terminal event ----------------------------------------------------------------------


@pytest.mark.parametrize("history", [(START,), (START, FINAL)], ids=["active", "tail"])
@pytest.mark.parametrize(
    ("ending", "terminal"),
    [
        (Completed(1, 0, 0), Done),
        (Broke(1, "engine_unavailable", "engine_lost", "gone"), Error),
        (Cancel("me", "a"), Cancelled),
        (End("me", "z"), Cancelled),
        (TooBig(9), Cancelled),
        (Closing(Close.IDLE), Cancelled),
        (Closing(Close.BUG), Cancelled),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[:16],
)
def test_p11_an_utterance_has_one_terminal_event(
    history: tuple[Message, ...], ending: Message, terminal: type[Event]
) -> None:
    """Whatever ends it first; the other endings, coming late, add nothing to it."""
    talk = Talk(*history)
    let_go, last, *_ = talk.hear(ending)

    assert let_go == Abort(1)
    assert isinstance(last, Emit)
    assert isinstance(last.event, terminal)
    assert last.event.request_id == "a"
    for late in (Heard(1, "late", 1), Completed(1, 0, 0), Broke(1, "x", "y", "z")):
        assert talk.hear(late) == []


def test_p11_an_utterance_that_cannot_be_opened_ends_in_an_error() -> None:
    details: dict[str, object] = {"retry": True}
    broke = Broke(1, "server_at_capacity", "no_engine_slot", "no slot", details)

    assert Talk(START).hear(broke) == [
        Abort(1),
        Emit(Error("me", "a", "server_at_capacity", "no slot", "no_engine_slot", details)),
    ]


def test_p11_audio_on_its_way_to_what_the_server_ended_is_no_error() -> None:
    talk = Talk(START, Broke(1, "engine_unavailable", "engine_lost", "gone"))

    assert talk.hear(AUDIO) == talk.hear(BINARY) == talk.hear(FINAL) == []
    assert talk.hear(START, AUDIO) == [Feed(2, SAMPLES)], "the request id can be used again"


def test_p11_audio_for_what_the_server_ended_is_an_error_once_another_has_started() -> None:
    broke = Broke(1, "engine_unavailable", "engine_lost", "gone")
    talk = Talk(START, broke, Start("me", "b"), Finalise("me", "b"))

    assert talk.error(AUDIO).reason_code == "no_active_request"
    assert talk.error(BINARY).reason_code == "no_active_request"


def test_p11_an_end_ends_tails_and_the_active_one() -> None:
    talk = Talk(START, FINAL, Start("me", "b"))

    assert talk.hear(End("you", "z")) == [
        Abort(1),
        Emit(Cancelled("me", "a", "end")),
        Abort(2),
        Emit(Cancelled("me", "b", "end")),
        Emit(SessionEnd("you", "z", "end")),
        CloseConnection(Close.NORMAL),
    ]


# --- Cancel and barge-in ---------------------------------------------------------------------


def test_p12_a_cancel_lets_go_of_the_engine_before_anything_else() -> None:
    talk = Talk(START, AUDIO, Heard(1, "half a", 2))

    assert talk.hear(Cancel("me", "a")) == [
        Abort(1),
        Emit(Cancelled("me", "a", "client_request")),
    ]
    assert talk.hear(Heard(1, " word", 4)) == talk.hear(Completed(1, 0, 0)) == []


def test_p12_barge_in_lets_go_of_the_old_before_it_opens_the_new() -> None:
    talk = Talk(START, AUDIO)

    assert talk.hear(Start("me", "b")) == [
        Abort(1),
        Emit(Cancelled("me", "a", "superseded")),
        Open(2, "me/b"),
    ]
    assert talk.hear(Heard(1, "old", 2)) == []
    assert talk.error(AUDIO).reason_code == "request_id_mismatch"


def test_p12_nothing_of_a_cancelled_utterance_gets_into_the_next_of_the_same_name() -> None:
    talk = Talk(START, AUDIO, Heard(1, "old", 2), Cancel("me", "a"), START)

    assert talk.hear(Heard(1, "late", 2)) == []
    assert talk.answer(Heard(2, "new", 0)) == Delta("me", "a", "new", 0)
    assert talk.hear(Completed(2, 0, 0)) == [
        Abort(2),
        Emit(Done("me", "a", "new", Usage(0, 0, 0, 0.0))),
    ]


def test_p12_a_cancel_of_a_tail_leaves_the_active_one_alone() -> None:
    talk = Talk(START, FINAL, Start("me", "b"))

    assert talk.hear(Cancel("me", "a", "changed my mind")) == [
        Abort(1),
        Emit(Cancelled("me", "a", "changed my mind")),
    ]
    assert talk.hear(BINARY) == [Feed(2, SAMPLES)]


def test_p12_a_cancel_under_a_name_never_used_ends_the_active_one() -> None:
    assert Talk(START).hear(Cancel("you", "z")) == [
        Abort(1),
        Emit(Cancelled("me", "a", "client_request")),
    ]


def test_p12_a_cancel_that_crossed_the_last_event_does_not_hit_the_next_utterance() -> None:
    talk = Talk(START, FINAL, Start("me", "b"), Completed(1, 0, 0))

    assert talk.answer(Cancel("me", "a")) == Cancelled("me", "a", "no_active_request")
    assert talk.hear(BINARY) == [Feed(2, SAMPLES)]


def test_p12_a_cancel_is_answered_when_nothing_is_active() -> None:
    assert Talk().answer(Cancel("me", "z", "why")) == Cancelled("me", "z", "no_active_request")
