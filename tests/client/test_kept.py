"""The pure parts of going on after a reconnect: audio that is kept, text that is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxtral_actors.client.meaning import Meaning, meaning
from voxtral_actors.client.recording import Recording
from voxtral_actors.client.transcript import Transcript
from voxtral_actors.protocol.events import Cancelled, Delta, Done, Error, Usage

WORDS = st.lists(st.sampled_from(["a", "b", " a", " b", " "]), max_size=6)


@given(lives=st.lists(WORDS, min_size=1, max_size=4))
def test_what_is_told_is_what_the_last_connection_said(lives: list[list[str]]) -> None:
    """Each connection hears the whole and says something; the last one also ends."""
    transcript = Transcript()
    shown = ""
    for number, said in enumerate(lives):
        if number:
            transcript.restart()
        news = [transcript.hear(text) for text in said]
        if number == len(lives) - 1:
            news.append(transcript.end("".join(said)))
        for item in news:
            if item is not None:
                shown = item.text if item.revised else shown + item.text
    assert shown == transcript.text == "".join(lives[-1])


def test_settled_text_stands_and_is_kept_apart_from_the_next() -> None:
    transcript = Transcript()
    transcript.hear("one")
    transcript.settle()
    transcript.restart()
    assert [news.text for news in [transcript.hear("two"), transcript.hear(" three")] if news] == [
        " two",
        " three",
    ]
    transcript.restart()
    assert transcript.hear("two") is None
    revised = transcript.hear(" five")
    assert revised is not None
    assert (revised.text, revised.revised) == ("one two five", True)


@given(
    pieces=st.lists(st.binary(max_size=40), max_size=20),
    keep=st.integers(0, 60).map(lambda n: 2 * n),
    covered=st.integers(0, 400).map(lambda n: 2 * n),
)
def test_a_recording_is_bounded_and_gives_every_byte_that_is_needed(
    pieces: list[bytes], keep: int, covered: int
) -> None:
    recording = Recording(keep)
    whole = b"".join(pieces)
    sent = b""
    for piece in pieces:
        recording.add(piece)
        while frame := recording.take(16):
            sent += frame
        assert recording.end - recording.begin <= keep + 1 + recording.unsent
    assert sent == whole[: len(whole) - len(whole) % 2]

    recording.rewind(covered)
    begin, again = recording.begin, b""
    while frame := recording.take(16):
        again += frame
    assert again == sent[begin:]
    assert begin <= covered + recording.lost, "audio without text is sent again, or counted"


IDS = "s", "u"
DONE = Done(*IDS, "text", Usage(0, 0, 0, 1.0))
SECOND = 32_000


@pytest.mark.parametrize(
    ("event", "finished", "posted", "expected"),
    [
        (Delta(*IDS, "text", 80), False, SECOND, Meaning.TEXT),
        (DONE, True, SECOND, Meaning.END),
        (DONE, False, SECOND, Meaning.PART),
        (DONE, True, 2 * SECOND, Meaning.PART),
        (Cancelled(*IDS, "shutting_down"), False, 0, Meaning.LEAVING),
        (Cancelled(*IDS, "max_duration"), False, 0, Meaning.LEAVING),
        (Cancelled(*IDS, "idle_timeout"), False, 0, Meaning.END),
        (Cancelled(*IDS, "superseded"), False, 0, Meaning.END),
        (Error(*IDS, "shutting_down", "", "draining", {}), False, 0, Meaning.LEAVING),
        (Error(*IDS, "engine_unavailable", "", "engine_lost", {}), False, 0, Meaning.END),
        (Error(*IDS, "invalid_payload", "", "invalid_audio", {}), False, 0, Meaning.NOT_UNDERSTOOD),
        (
            Error(*IDS, "rate_limited", "", "cancel_rate_limited", {}),
            False,
            0,
            Meaning.CANCEL_REFUSED,
        ),
    ],
)
def test_what_an_event_means(
    event: Delta | Done | Cancelled | Error, finished: bool, posted: int, expected: Meaning
) -> None:
    def means(*, resumable: bool, cancelling: bool) -> Meaning:
        return meaning(
            event, resumable=resumable, cancelling=cancelling, finished=finished, posted=posted
        )

    assert means(resumable=True, cancelling=False) is expected
    if expected in {Meaning.PART, Meaning.LEAVING}:  # where nothing can go on, it is the end
        assert means(resumable=False, cancelling=False) is Meaning.END
    if isinstance(event, Cancelled):
        assert means(resumable=True, cancelling=True) is Meaning.END
