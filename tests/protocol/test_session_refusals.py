"""What a session refuses, how often, and its last words before a Close."""

from __future__ import annotations

import pytest

from tests.protocol.ledger import Talk
from voxtral_actors.limits import MAX_TAILS
from voxtral_actors.protocol.closing import Close, farewell
from voxtral_actors.protocol.codec import decode
from voxtral_actors.protocol.commands import (
    Append,
    BadMessage,
    Cancel,
    Finalise,
    Ping,
    SessionUpdate,
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
    Error,
    SessionEnd,
    SessionUpdated,
)
from voxtral_actors.protocol.signals import (
    Closing,
    Completed,
    Heard,
    Message,
    StopStarts,
    WindDown,
)
from voxtral_actors.protocol.states import State

SAMPLES = b"\1\0\2\0"
START = Start("me", "a")
FINAL = Finalise("me", "a")
AUDIO = Append(SAMPLES, "me", "a")
BINARY = Append(SAMPLES)
BAD = BadMessage("invalid_message", "invalid_json", "no JSON")
MAX_BAD = 3
IDS = '"session_id":"s","request_id":"r"'


@pytest.mark.parametrize(
    ("frame", "code", "reason_code"),
    [
        ("no JSON", "invalid_message", "invalid_json"),
        ("[]", "invalid_message", "not_an_object"),
        ('{"type":"ping"}', "invalid_message", "invalid_envelope"),
        (f'{{"type":"sing",{IDS}}}', "invalid_message", "unknown_type"),
        (f'{{"type":"cancel",{IDS},"payload":1}}', "invalid_payload", "invalid_payload"),
        (
            f'{{"type":"input_audio_buffer.append",{IDS},"payload":{{"audio":"?"}}}}',
            "invalid_payload",
            "invalid_audio",
        ),
        (b"\0\0\0", "invalid_payload", "invalid_audio"),
        (b"\0\0", "invalid_payload", "no_active_request"),
    ],
    ids=[
        "no JSON",
        "no object",
        "no envelope",
        "unknown type",
        "bad payload",
        "bad audio",
        "odd binary",
        "binary outside an utterance",
    ],
)
def test_p9_a_message_in_error_is_answered_and_the_connection_goes_on(
    frame: str | bytes, code: str, reason_code: str
) -> None:
    talk = Talk(max_bad=100)
    error = talk.error(decode(frame, 1024))

    assert (error.code, error.reason_code) == (code, reason_code)
    assert talk.session.state is State.IDLE
    assert talk.hear(START, AUDIO) == [Feed(1, SAMPLES)]


def test_p9_a_message_in_error_does_not_disturb_the_utterance() -> None:
    talk = Talk(START, AUDIO)
    talk.error(BAD)
    talk.error(Append(SAMPLES, "me", "z"))

    assert talk.hear(AUDIO) == [Feed(1, SAMPLES)]


def test_p9_too_many_messages_in_error_end_the_connection() -> None:
    talk = Talk(START, max_bad=MAX_BAD)
    for _ in range(MAX_BAD - 1):
        talk.error(BAD)

    assert talk.hear(BAD) == [
        Emit(Error("me", "connection", BAD.code, BAD.message, BAD.reason_code)),
        Abort(1),
        Emit(Cancelled("me", "a", "too_many_bad_messages")),
        Emit(farewell("me", "connection", Close.TOO_MANY_BAD)),
        CloseConnection(Close.TOO_MANY_BAD),
    ]
    assert talk.hear(BAD) == []


@pytest.mark.parametrize(
    "bad",
    [
        BAD,
        AUDIO,
        BINARY,
        FINAL,
        SessionUpdate("me", "r", "another"),
        BadMessage("rate_limited", "message_rate_limited", "slower"),
    ],
    ids=["frame", "append", "binary", "final", "model", "rate"],
)
def test_p9_every_kind_of_error_counts(bad: Message) -> None:
    talk = Talk(*[bad] * (MAX_BAD - 1), max_bad=MAX_BAD)

    assert talk.hear(bad)[-1] == CloseConnection(Close.TOO_MANY_BAD)


def test_p9_no_number_of_errors_is_too_many_if_there_is_no_limit() -> None:
    talk = Talk(*[BAD] * 1000, max_bad=0)

    assert talk.session.state is State.IDLE


def test_p9_a_message_over_the_size_limit_ends_the_connection() -> None:
    assert Talk(START).hear(TooBig(1024)) == [
        Abort(1),
        Emit(Cancelled("me", "a", "message_too_big")),
        Emit(SessionEnd("me", "connection", "message_too_big")),
        CloseConnection(Close.TOO_BIG),
    ]


@pytest.mark.parametrize(
    ("history", "message", "reason_code"),
    [
        ((), AUDIO, "no_active_request"),
        ((), FINAL, "no_active_request"),
        ((START, FINAL), AUDIO, "no_active_request"),
        ((START, FINAL), FINAL, "no_active_request"),
        ((START, FINAL), BINARY, "no_active_request"),
        ((START, Cancel("me", "a")), AUDIO, "no_active_request"),
        ((Start("me", "b"),), AUDIO, "request_id_mismatch"),
        ((Start("me", "b"),), FINAL, "request_id_mismatch"),
        ((START,), START, "request_id_in_use"),
        ((START, FINAL), START, "request_id_in_use"),
        ((START, FINAL, Start("me", "b")), START, "request_id_in_use"),
    ],
)
def test_p9_a_request_id_that_does_not_fit(
    history: tuple[Message, ...], message: Message, reason_code: str
) -> None:
    error = Talk(*history).error(message)

    assert (error.code, error.reason_code) == ("invalid_payload", reason_code)
    assert error.details == {"field": "request_id", "value": getattr(message, "request_id", None)}


@pytest.mark.parametrize("model", [None, "voxtral"])
def test_the_served_model_is_accepted(model: str | None) -> None:
    update = SessionUpdate("me", "r", model)

    assert Talk().answer(update) == SessionUpdated("me", "r", "voxtral")


def test_another_model_is_refused_by_name() -> None:
    error = Talk().error(SessionUpdate("me", "r", "whisper"))

    assert (error.code, error.reason_code) == ("invalid_payload", "unsupported_model")
    assert "whisper" in error.message
    assert error.details == {"field": "payload.model", "allowed": ["voxtral"]}


def test_more_tails_than_allowed_are_refused_and_their_audio_is_dropped() -> None:
    talk = Talk()
    for number in range(MAX_TAILS):
        talk.hear(Start("me", f"t{number}"), Finalise("me", f"t{number}"))
    error = talk.error(START)

    assert (error.code, error.reason_code) == ("server_at_capacity", "too_many_finalising")
    assert talk.hear(AUDIO) == talk.hear(BINARY) == talk.hear(FINAL) == []
    assert talk.session.bad_messages == 0
    assert talk.hear(Completed(1, 0, 0), START) == [Open(MAX_TAILS + 1, "me/a")]


def test_a_drain_lets_the_active_one_go_on_and_starts_no_other() -> None:
    talk = Talk(START, StopStarts())

    assert talk.hear(AUDIO) == [Feed(1, SAMPLES)]
    assert talk.hear(FINAL) == [Finish(1)]
    error = talk.error(Start("me", "b"))
    assert (error.code, error.reason_code) == ("shutting_down", "draining")
    assert talk.hear(Append(SAMPLES, "me", "b")) == talk.hear(BINARY) == []


def test_barge_in_by_a_refused_start_ends_the_active_one_all_the_same() -> None:
    """Unnamed audio on its way is meant for the new one and must not reach the old one's text."""
    talk = Talk(START, AUDIO, StopStarts())
    abort, cancelled, refused = talk.hear(Start("me", "b"))

    assert abort == Abort(1)
    assert cancelled == Emit(Cancelled("me", "a", "superseded"))
    assert isinstance(refused, Emit)
    assert isinstance(refused.event, Error)
    assert refused.event.reason_code == "draining"
    assert talk.hear(BINARY) == talk.hear(Append(SAMPLES, "me", "b")) == []


def test_audio_for_a_start_over_the_rate_limit_is_no_error_of_its_own() -> None:
    """One error for the start; the chunks that follow it would be hundreds more."""
    over = BadMessage("rate_limited", "message_rate_limited", "no", {}, "me", "b", was_start=True)
    talk = Talk(over)

    assert talk.hear(Append(SAMPLES, "me", "b")) == talk.hear(BINARY) == []
    assert talk.session.bad_messages == 1


def test_a_wind_down_finishes_the_active_one_and_drops_its_further_audio() -> None:
    talk = Talk(START, AUDIO)

    assert talk.hear(WindDown()) == [Finish(1)]
    assert talk.hear(AUDIO) == talk.hear(BINARY) == talk.hear(FINAL) == []
    assert talk.error(Start("me", "b")).reason_code == "draining"
    assert talk.answer(Heard(1, "last words", 2)) == Delta("me", "a", "last words", 0)


@pytest.mark.parametrize("close", Close)
def test_p17_the_last_words_come_before_the_close(close: Close) -> None:
    """An `error` where the table has one, else a `session_end`, under the client's own name."""
    said, last = Talk(Ping("me", "p")).hear(Closing(close))

    assert last == CloseConnection(close)
    assert isinstance(said, Emit)
    assert (said.event.session_id, said.event.request_id) == ("me", "connection")
    if close.spec.error is None:
        assert said.event == SessionEnd("me", "connection", close.spec.slug)
    else:
        assert isinstance(said.event, Error)
        assert (said.event.code, said.event.reason_code) == (close.spec.error, close.spec.slug)
