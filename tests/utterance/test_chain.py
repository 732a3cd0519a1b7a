"""The whole chain: whatever happens to its streams, every word is said once and in its order.

The recogniser in `hearing.py` knows the truth, so the text of every example is known. In all of
them the joined deltas are the text, for a delta is never taken back.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.utterance.hearing import (
    CAP,
    GRAIN,
    STEP,
    TIMING,
    Room,
    Spoken,
    audio_of,
    sentence,
    text_of,
)
from tests.utterance.talking import (
    FEW,
    NO_ROLLS,
    SHORT,
    chunks,
    heard,
    phrases,
    spoken,
)
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE
from voxtral_actors.utterance.actions import Complete
from voxtral_actors.utterance.segmenter import Policy, Reason
from voxtral_actors.utterance.timing import Timing


def test_an_utterance_that_is_never_rolled() -> None:
    speech = sentence(20)
    room = Room(speech, NO_ROLLS)

    assert heard(room, audio_of(speech)) == text_of(speech)
    assert isinstance(room.end, Complete)
    assert room.opened == 1


def test_an_utterance_without_audio() -> None:
    room = Room([])
    room.finish()

    assert room.end == Complete(1, 0)
    assert room.text == ""


@FEW
@given(spoken())
def test_p13_rolls_at_pauses_lose_no_word_and_double_none(speech: list[Spoken]) -> None:
    speech = phrases(speech)

    assert heard(Room(speech, SHORT), audio_of(speech)) == text_of(speech)


def test_p13_rolls_happen_in_pauses_where_there_are_pauses() -> None:
    speech = phrases(sentence(60))
    room = Room(speech, SHORT)
    heard(room, audio_of(speech))
    rolls = room.chain.statistics().rolls

    assert rolls[Reason.PAUSE] >= 4
    assert rolls[Reason.LENGTH] == 0
    assert room.opened == 1 + rolls[Reason.PAUSE]


@FEW
@given(st.integers(10, 90), st.integers(3, 12), st.integers(20, 45))
def test_p13_rolls_in_fluent_speech_lose_no_word_and_double_none(
    count: int, silence: int, length: int
) -> None:
    speech = sentence(count, length=length, silence=silence)
    room = Room(speech, SHORT)

    assert heard(room, audio_of(speech)) == text_of(speech)
    assert room.chain.statistics().rolls[Reason.PAUSE] == 0


@FEW
@given(st.integers(20, 60), st.integers(0, 30))
def test_p13_a_roll_in_the_middle_of_a_word(count: int, shift: int) -> None:
    """There is no quiet moment at all, so the seam is anywhere."""
    speech = [Spoken("alpha", 20 + shift, 0), *sentence(count, silence=0)]
    room = Room(speech, SHORT)

    assert heard(room, audio_of(speech)) == text_of(speech)


@FEW
@given(spoken(), st.sampled_from([333, 1601, 30_000]), st.sampled_from([NO_ROLLS, SHORT]))
def test_the_text_does_not_depend_on_how_audio_was_chopped(
    speech: list[Spoken], samples: int, policy: Policy
) -> None:
    pcm = audio_of(speech)

    assert heard(Room(speech, policy), pcm, BYTES_PER_SAMPLE * samples) == text_of(speech)


def test_p13_a_minute_in_one_message_is_rolled_like_a_minute_of_messages() -> None:
    speech = phrases(sentence(150))
    pcm = audio_of(speech)
    room = Room(speech, SHORT)

    assert heard(room, pcm, len(pcm)) == text_of(speech)
    assert room.opened > 1


def test_the_journal_of_a_long_utterance_stays_short() -> None:
    speech = phrases(sentence(600))
    room = Room(speech, Policy())
    most = 0
    for chunk in chunks(audio_of(speech)):
        room.say(chunk)
        most = max(most, room.chain.statistics().journal.held)
    room.finish()

    assert room.text == text_of(speech)
    assert most < 6 * SAMPLE_RATE
    assert most < CAP


def test_p12_nothing_is_said_after_it_was_abandoned() -> None:
    speech = sentence(20)
    room = Room(speech, NO_ROLLS)
    for chunk in chunks(audio_of(speech))[:50]:
        room.say(chunk)
    (key,) = room.streams
    room.do(room.chain.abandon())

    assert not room.streams
    assert not room.chain.waiting
    assert room.chain.heard(key, " ghost", 99 * GRAIN) == []
    assert room.chain.ended(key, 1, 1) == []
    assert room.chain.lost(key) == []


@FEW
@given(spoken(), st.integers(0, 30))
def test_an_engine_with_no_delay(speech: list[Spoken], extra: int) -> None:
    """It says words up to a second late, and that is all that is known."""
    lag = TIMING.lag + extra * STEP
    timing = Timing(delay=0, lag=lag, jitter=lag)

    assert heard(Room(speech, SHORT, timing=timing), audio_of(speech)) == text_of(speech)
