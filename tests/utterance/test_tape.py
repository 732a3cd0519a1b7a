"""The tape: audio that comes in pieces of any size, is read again, and forgotten from its front."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxtral_actors.limits import BYTES_PER_SAMPLE
from voxtral_actors.utterance.tape import SMALL_BYTES, Tape

SMALL = SMALL_BYTES // BYTES_PER_SAMPLE


def audio(samples: int, seed: int = 0) -> bytes:
    return bytes((seed + byte) % 251 for byte in range(samples * BYTES_PER_SAMPLE))


@given(st.data())
def test_any_part_of_what_was_not_forgotten_is_as_it_came(data: st.DataObject) -> None:
    tape, whole = Tape(), b""
    for seed in range(data.draw(st.integers(0, 12))):
        piece = audio(data.draw(st.integers(0, 2 * SMALL)), seed)
        tape.append(piece)
        whole += piece
        tape.forget(data.draw(st.integers(0, tape.ends)))
    begins = data.draw(st.integers(tape.begins, tape.ends))
    ends = data.draw(st.integers(begins, tape.ends))

    assert tape.ends == len(whole) // BYTES_PER_SAMPLE
    assert tape.part(begins, ends) == whole[begins * BYTES_PER_SAMPLE : ends * BYTES_PER_SAMPLE]


def test_a_message_is_handed_out_as_the_object_that_came() -> None:
    tape = Tape()
    first, second = audio(1280), audio(1280, seed=1)
    tape.append(first)
    tape.append(second)

    assert tape.part(0, 1280) is first
    assert tape.part(1280, 2560) is second


def test_audio_a_sample_at_a_time_takes_few_objects() -> None:
    tape = Tape()
    for seed in range(10 * SMALL):
        tape.append(audio(1, seed))

    assert len(tape._pieces) == 10


def test_forgetting_goes_forward_only() -> None:
    tape = Tape()
    tape.append(audio(100))
    tape.forget(40)
    tape.forget(10)

    assert (tape.begins, tape.ends) == (40, 100)


@pytest.mark.parametrize(("begins", "ends"), [(39, 50), (50, 49), (50, 101)])
def test_what_is_not_here_is_a_bug_of_ours(begins: int, ends: int) -> None:
    tape = Tape()
    tape.append(audio(100))
    tape.forget(40)

    with pytest.raises(AssertionError, match="not here"):
        tape.part(begins, ends)


def test_what_has_not_come_cannot_be_forgotten() -> None:
    tape = Tape()
    tape.append(audio(100))

    with pytest.raises(AssertionError, match="not here yet"):
        tape.forget(101)
