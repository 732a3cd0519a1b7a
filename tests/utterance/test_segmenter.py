"""Where speech, pauses and quiet moments are found: in real speech, in noise, in neither."""

from __future__ import annotations

from importlib import resources
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.utterance.levels import BLOCK, Meter
from voxtral_actors.utterance.segmenter import (
    LEAST_OVERLAP,
    SPEECH_WINDOW,
    Note,
    Pause,
    Policy,
    Reason,
    Roll,
    Segmenter,
)
from voxtral_actors.utterance.timing import Timing

Samples = npt.NDArray[np.int16]
TIMING = Timing(delay=SAMPLE_RATE // 2, lag=SAMPLE_RATE)
STEP = 1280

SAMPLE_S = 8.31
SPEECH = [(0.5, 2.3), (3.4, 5.2), (6.3, 7.7)]
"""Where somebody speaks in the demo's sample, in seconds; between these nobody does."""
TIMES = 4
PAUSES = [
    (begins[1] + n * SAMPLE_S, ends[0] + n * SAMPLE_S)
    for n in range(TIMES)
    for begins, ends in pairwise([*SPEECH, (SPEECH[0][0] + SAMPLE_S, 0)])
]


@pytest.fixture(scope="module")
def speech() -> Samples:
    """The demo's sample, four times in a row."""
    path = resources.files("voxtral_actors.demo") / "sample.flac"
    with resources.as_file(path) as file:
        samples, rate = soundfile.read(file, dtype="int16")
    assert rate == SAMPLE_RATE
    return np.tile(samples, TIMES)


def noise(count: int, level_db: float, seed: int = 1) -> Samples:
    """White noise of this level below full scale."""
    amplitude = 2**15 * 10 ** (level_db / 20)
    return np.random.default_rng(seed).normal(0, amplitude, count).astype(np.int16)


def notes(samples: Samples, policy: Policy | None = None, size: int = STEP) -> list[Note]:
    """What the segmenter finds if nobody follows its proposals, in chunks of so many samples."""
    segmenter = Segmenter(policy or Policy(target_s=0), TIMING)
    starts = range(0, len(samples), size)
    return [note for s in starts for note in segmenter.push(samples[s : s + size].tobytes())]


def seconds(found: list[Note]) -> list[float]:
    return [note.at / SAMPLE_RATE for note in found if isinstance(note, Pause)]


def pause_of(at: float) -> int | None:
    """Which of the pauses this moment is in."""
    inside = (n for n, (begins, ends) in enumerate(PAUSES) if begins <= at <= ends)
    return next(inside, None)


class TestPauses:
    def test_each_pause_of_real_speech_is_found_and_no_other(self, speech: Samples) -> None:
        found = [pause_of(at) for at in seconds(notes(speech))]

        assert None not in found
        assert set(found) >= set(range(len(PAUSES) - 1))

    @pytest.mark.parametrize("level_db", [-70, -60, -50, -45, -40, -36])
    def test_in_noise_too_once_the_noise_is_known(self, speech: Samples, level_db: float) -> None:
        found = [pause_of(at) for at in seconds(notes(speech + noise(len(speech), level_db)))]

        assert None not in found
        assert set(found) >= set(range(3, len(PAUSES) - 1))

    @pytest.mark.parametrize("level_db", [-30, -24, -18])
    def test_where_noise_covers_speech_no_pause_is_trusted(
        self, speech: Samples, level_db: float
    ) -> None:
        assert notes(speech + noise(len(speech), level_db)) == []

    def test_noise_that_comes_and_goes(self, speech: Samples) -> None:
        """A fan is switched on in the second round and off in the last one."""
        quarter = len(speech) // 4
        fan = np.zeros_like(speech)
        fan[quarter : 3 * quarter] = noise(2 * quarter, -48)
        found = [pause_of(at) for at in seconds(notes(speech + fan))]

        assert None not in found
        assert set(found) >= {0, 1, 6, 7, 9, 10}

    @pytest.mark.parametrize("gain", [0.1, 0.3, 1.8])
    def test_quiet_and_loud_speakers(self, speech: Samples, gain: float) -> None:
        found = [pause_of(at) for at in seconds(notes((speech * gain).astype(np.int16)))]

        assert None not in found
        assert set(found) >= set(range(len(PAUSES) - 1))

    def test_an_offset_of_the_microphone_is_not_heard(self, speech: Samples) -> None:
        assert notes((speech + 1500).astype(np.int16)) == notes(speech)

    @pytest.mark.parametrize("size", [1, 7, 320, 1279, 50_000])
    def test_how_audio_is_chopped_makes_no_difference(self, speech: Samples, size: int) -> None:
        samples = speech[: 4 * SAMPLE_RATE]

        assert notes(samples, size=size) == notes(samples)

    def test_silence_and_steady_noise_alone_have_no_pauses(self) -> None:
        assert notes(np.zeros(20 * SAMPLE_RATE, np.int16)) == []
        assert notes(noise(20 * SAMPLE_RATE, -30)) == []


class TestRolls:
    POLICY = Policy(target_s=10, limit_s=14)

    def test_p13_in_the_first_pause_after_the_target(self, speech: Samples) -> None:
        roll = next(note for note in notes(speech, self.POLICY) if isinstance(note, Roll))

        assert roll.reason is Reason.PAUSE
        assert pause_of(roll.at / SAMPLE_RATE) == pause_of(roll.end / SAMPLE_RATE) == 3

    def test_p13_at_the_quietest_moment_where_there_is_no_pause(self) -> None:
        loud = noise(20 * SAMPLE_RATE, -20)
        gap = round(12.9 * SAMPLE_RATE)
        loud[gap : gap + 8 * BLOCK] //= 8
        roll = next(note for note in notes(loud, self.POLICY) if isinstance(note, Roll))

        assert roll.reason is Reason.LENGTH
        assert roll.end == 14 * SAMPLE_RATE
        assert gap <= roll.at <= gap + 8 * BLOCK
        assert roll.end - roll.at >= LEAST_OVERLAP

    def test_a_proposal_comes_again_until_it_is_followed(self) -> None:
        rolls = notes(noise(20 * SAMPLE_RATE, -20), self.POLICY)

        assert [roll.end // SAMPLE_RATE for roll in rolls if isinstance(roll, Roll)] == [
            14, 15, 16, 17, 18, 19, 20
        ]  # fmt: skip

    def test_a_segment_that_began_is_as_long_as_the_first(self) -> None:
        segmenter = Segmenter(self.POLICY, TIMING)
        ends = []
        for _ in range(100):
            for note in segmenter.push(noise(SAMPLE_RATE, -20).tobytes()):
                if isinstance(note, Roll):
                    ends.append(note.end)
                    segmenter.begin(note.end)

        assert [end // SAMPLE_RATE for end in ends] == [14, 28, 42, 56, 70, 84, 98]

    def test_a_model_that_takes_less_is_never_fed_more(self) -> None:
        timing = Timing(lag=SAMPLE_RATE, longest=8 * SAMPLE_RATE)
        segmenter = Segmenter(self.POLICY, timing)
        found = segmenter.push(noise(20 * SAMPLE_RATE, -20).tobytes())

        assert isinstance(found[0], Roll)
        assert 7 * SAMPLE_RATE <= found[0].end < 8 * SAMPLE_RATE

    def test_off(self) -> None:
        timing = Timing(lag=SAMPLE_RATE, longest=8 * SAMPLE_RATE)
        segmenter = Segmenter(Policy(target_s=0, mute_s=0), timing)
        samples = noise(60 * SAMPLE_RATE, -20)

        assert segmenter.push(samples.tobytes()) == []
        assert segmenter.heard(len(samples), text=False) is None


class TestMute:
    def heard(self, samples: Samples, *, text_at: float = -1) -> list[float]:
        """When speech without text is noticed; the engine is a second behind."""
        segmenter = Segmenter(Policy(target_s=0), TIMING)
        found = []
        for start in range(0, len(samples), STEP):
            segmenter.push(samples[start : start + STEP].tobytes())
            consumed = start - SAMPLE_RATE
            text = abs(consumed / SAMPLE_RATE - text_at) < STEP / SAMPLE_RATE
            if roll := segmenter.heard(consumed, text=text):
                assert roll.reason is Reason.MUTE
                found.append(consumed / SAMPLE_RATE)
        return found

    def test_p14_speech_without_text(self, speech: Samples) -> None:
        (first, *_) = self.heard(speech)

        # Nine seconds of speech (eight, and what the text may trail by) with their pauses.
        assert 12 < first < 16

    def test_p14_text_starts_the_count_anew(self, speech: Samples) -> None:
        (first, *_) = self.heard(speech, text_at=10)

        assert 22 < first < 26

    @pytest.mark.parametrize("level_db", [-90, -60, -40, -20])
    def test_p14_steady_noise_is_not_speech(self, level_db: float) -> None:
        assert self.heard(noise(120 * SAMPLE_RATE, level_db)) == []

    def test_p14_rare_noises_do_not_add_up(self) -> None:
        """A cough of half a second every ten seconds, for ten minutes."""
        samples = noise(600 * SAMPLE_RATE, -60)
        for second in range(10, 600, 10):
            cough = slice(second * SAMPLE_RATE, second * SAMPLE_RATE + SAMPLE_RATE // 2)
            samples[cough] = noise(SAMPLE_RATE // 2, -20)

        assert self.heard(samples) == []

    def test_audio_stays_unheard_for_a_bounded_time(self) -> None:
        segmenter = Segmenter(Policy(target_s=0, mute_s=0), TIMING)
        samples = noise(600 * SAMPLE_RATE, -60)
        samples[: SAMPLE_RATE // 2] = noise(SAMPLE_RATE // 2, -20)
        most = 0
        for start in range(0, len(samples), STEP):
            segmenter.push(samples[start : start + STEP].tobytes())
            segmenter.heard(start, text=False)
            if (unheard := segmenter.unheard_from) is not None:
                most = max(most, start - unheard)

        assert most <= SPEECH_WINDOW + 3 * TIMING.lag


def test_the_floor_is_that_of_the_noise(speech: Samples) -> None:
    for level_db in (-60, -50, -40, -30):
        meter = Meter()
        meter.push((speech + noise(len(speech), level_db)).tobytes())

        assert level_db - 3 < meter.floor < level_db + 1
