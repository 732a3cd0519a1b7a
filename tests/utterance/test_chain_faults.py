"""The chain in trouble: streams that are lost, refused or mute, and a journal that is full.

In all of it no delta is taken back, and where the utterance ends well its text is whole.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.utterance.hearing import (
    VOCABULARY,
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
from voxtral_actors.utterance.actions import Complete, GiveUp
from voxtral_actors.utterance.segmenter import Policy, Reason


class TestLoss:
    """The engine dies; a new stream hears what is not settled."""

    @FEW
    @given(st.data(), spoken(), st.sampled_from([NO_ROLLS, SHORT]))
    def test_p15_replay_from_any_point(
        self, data: st.DataObject, speech: list[Spoken], policy: Policy
    ) -> None:
        pcm = chunks(audio_of(speech, silence_after=50))
        moments = st.sets(st.integers(0, len(pcm) - 1), min_size=1, max_size=4)
        losses = data.draw(moments)
        away = data.draw(st.integers(0, 60))
        room = Room(speech, policy)
        said = ""
        for number, chunk in enumerate(pcm):
            if number in losses:
                room.lose()
            if room.chain.waiting and not any(
                n in losses for n in range(number - away, number + 1)
            ):
                room.do(room.chain.open())
            room.say(chunk)
            assert room.text.startswith(said)
            said = room.text
        room.finish()

        assert room.text == text_of(speech)
        assert isinstance(room.end, Complete)

    @pytest.mark.parametrize("steps", range(0, 24, 2))
    def test_p15_the_engine_dies_again_while_it_catches_up(self, steps: int) -> None:
        speech = phrases(sentence(30))
        pcm = audio_of(speech)
        room = Room(speech, NO_ROLLS)
        for chunk in chunks(pcm)[:100]:
            room.say(chunk)
        for _ in range(3):
            room.lose()
            room.do(room.chain.open())
            room.work(steps)
        for chunk in chunks(pcm)[100:]:
            room.say(chunk)
        room.finish()

        assert room.text == text_of(speech)
        assert room.chain.statistics().replays == 3

    def test_p15_the_last_words_are_lost_with_the_engine(self) -> None:
        speech = sentence(20)
        room = Room(speech, NO_ROLLS)
        room.do(room.chain.audio(audio_of(speech)))
        room.do(room.chain.finish())
        room.work(60)
        room.lose()
        room.do(room.chain.open())
        room.work()

        assert room.text == text_of(speech)
        assert isinstance(room.end, Complete)

    def test_a_stream_that_ends_by_itself_is_lost(self) -> None:
        speech = sentence(20)
        room = Room(speech, NO_ROLLS)
        for chunk in chunks(audio_of(speech)):
            room.say(chunk)
        (key,) = room.streams
        room.streams.clear()
        room.do(room.chain.ended(key, 1, 1))
        assert room.chain.waiting
        room.finish()

        assert room.text == text_of(speech)

    @FEW
    @given(st.integers(20, 250), st.integers(3, 9))
    def test_what_was_said_stays_when_it_is_heard_differently(
        self, moment: int, every: int
    ) -> None:
        """The second hearing has other words in some places. The text has each word once, in the
        one form or the other, and what comes after the loss is not touched."""
        speech = sentence(60)
        odd = {word: f"{word}ish" for word in VOCABULARY[::every]}
        room = Room(speech, NO_ROLLS, accents=[str, lambda word: odd.get(word, word)])
        for number, chunk in enumerate(chunks(audio_of(speech))):
            if number == moment:
                before = room.text
                room.lose()
                room.do(room.chain.open())
            room.say(chunk)
        room.finish()
        found = room.text.split()

        assert room.text.startswith(before)
        assert [word.removesuffix("ish") for word in found] == text_of(speech).split()

    def test_what_was_said_stays_when_nothing_of_it_is_heard_again(self) -> None:
        speech = sentence(40)
        room = Room(speech, NO_ROLLS, accents=[str, lambda word: word[::-1]])
        for number, chunk in enumerate(chunks(audio_of(speech))):
            if number == 100:
                before = room.text
                room.lose()
                room.do(room.chain.open())
            room.say(chunk)
        room.finish()
        found, expected = room.text.split(), text_of(speech).split()

        assert room.text.startswith(before)
        assert abs(len(found) - len(expected)) <= 1
        assert found[-20:] == [word[::-1] for word in expected[-20:]]


class TestRoom:
    """The engine has no room for a second stream, or none at all."""

    @FEW
    @given(spoken(), st.sets(st.integers(0, 200)))
    def test_a_roll_that_is_refused_is_tried_again(
        self, speech: list[Spoken], full: set[int]
    ) -> None:
        room = Room(speech, SHORT)
        for number, chunk in enumerate(chunks(audio_of(speech))):
            room.full = number in full
            room.say(chunk)
        room.full = False
        room.finish()

        assert room.text == text_of(speech)

    def test_audio_waits_for_an_engine_that_is_full(self) -> None:
        speech = sentence(20)
        room = Room(speech, NO_ROLLS)
        room.lose()
        room.full = True
        for chunk in chunks(audio_of(speech)):
            room.say(chunk)
            room.do(room.chain.open())
        assert room.text == ""
        room.full = False
        room.finish()

        assert room.text == text_of(speech)
        assert room.chain.statistics().refused > 0


class TestMute:
    """The model has nothing to say to speech."""

    MUTE = Policy(target_s=0, mute_s=4)

    def test_p14_a_mute_stream_is_given_up_and_its_audio_heard_again(self) -> None:
        speech = sentence(60)
        room = Room(speech, self.MUTE)
        for number, chunk in enumerate(chunks(audio_of(speech))):
            room.mute = {1} if number > 60 else ()
            room.say(chunk)
        room.finish()

        assert room.text == text_of(speech)
        assert room.chain.statistics().rolls[Reason.MUTE] == 1

    def test_p14_silence_is_no_reason(self) -> None:
        speech = [Spoken("alpha"), Spoken("bravo", silence=6000)]
        room = Room(speech, self.MUTE)

        assert heard(room, audio_of(speech)) == text_of(speech)
        assert room.opened == 1

    def test_p14_a_mute_engine_is_not_asked_again_and_again(self) -> None:
        speech = sentence(900)
        room = Room(speech, self.MUTE)
        room.mute = range(99)
        heard(room, audio_of(speech, 100))

        seconds = len(audio_of(speech)) / BYTES_PER_SAMPLE / SAMPLE_RATE
        assert seconds > 300
        assert 3 <= room.chain.statistics().rolls[Reason.MUTE] <= 5


class TestCap:
    """The journal is full."""

    def test_p10_the_journal_is_bounded_and_a_loss_in_its_gap_is_told(self) -> None:
        speech = sentence(60)
        room = Room(speech, NO_ROLLS, cap=5 * SAMPLE_RATE)
        for chunk in chunks(audio_of(speech)):
            room.do(room.chain.audio(chunk))  # and the engine does nothing
            assert room.chain.statistics().journal.held <= 5 * SAMPLE_RATE
        room.lose()

        assert isinstance(room.end, GiveUp)
        assert room.end.gap.begins == 0
        assert room.end.gap.ends > 0

    def test_p10_a_gap_that_was_settled_is_none(self) -> None:
        speech = sentence(60)
        room = Room(speech, NO_ROLLS, cap=5 * SAMPLE_RATE)
        pcm = chunks(audio_of(speech))
        for chunk in pcm[:100]:
            room.do(room.chain.audio(chunk))
        for chunk in pcm[100:]:
            room.say(chunk)
        room.lose()
        room.finish()

        assert room.text == text_of(speech)

    def test_p10_what_overflows_while_the_engine_is_away_is_told_at_once(self) -> None:
        speech = sentence(60)
        room = Room(speech, NO_ROLLS, cap=5 * SAMPLE_RATE)
        room.lose()
        for chunk in chunks(audio_of(speech)):
            if room.end is None:
                room.say(chunk)

        assert isinstance(room.end, GiveUp)
