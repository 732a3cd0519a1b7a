"""What the tests of the chain have in common: policies, speech to draw, and an utterance played."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from hypothesis import settings
from hypothesis import strategies as st

from tests.utterance.hearing import STEP, Room, Spoken, sentence
from voxtral_actors.limits import BYTES_PER_SAMPLE
from voxtral_actors.utterance.segmenter import Policy

CHUNK = STEP * BYTES_PER_SAMPLE
NO_ROLLS = Policy(target_s=0, mute_s=0)
SHORT = Policy(target_s=4, limit_s=8, mute_s=0)
"""Rolls every few seconds, so that short audio has many seams."""

LONG_PAUSE = 90
FEW = settings(max_examples=25)  # each is half a minute of audio


@st.composite
def spoken(draw: st.DrawFn) -> list[Spoken]:
    """Up to half a minute of speech, with pauses in it and no word twice within ten seconds."""
    words = sentence(draw(st.integers(1, 60)))
    lengths = st.lists(st.integers(20, 45), min_size=len(words), max_size=len(words))
    silence = st.integers(6, 15) | st.just(LONG_PAUSE)
    silences = st.lists(silence, min_size=len(words), max_size=len(words))
    return [
        attrs.evolve(word, length=length, silence=silence)
        for word, length, silence in zip(words, draw(lengths), draw(silences), strict=True)
    ]


def chunks(pcm: bytes, size: int = CHUNK) -> list[bytes]:
    return [pcm[start : start + size] for start in range(0, len(pcm), size)]


def heard(room: Room, pcm: bytes, size: int = CHUNK) -> str:
    """The text of a whole utterance at live pace."""
    for chunk in chunks(pcm, size):
        room.say(chunk)
    room.finish()
    return room.text


def phrases(speech: Sequence[Spoken], words: int = 5) -> list[Spoken]:
    """A pause after so many words."""
    return [
        attrs.evolve(word, silence=LONG_PAUSE) if number % words == 0 else word
        for number, word in enumerate(speech)
    ]
