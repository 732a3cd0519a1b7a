"""The worker's own logic, in this process: its framing, and where speech is cut into segments.

The detector takes a frame for speech when its first byte is 1; the decoder says how many frames of
each it was given. So a text such as `3+s15+7` reads: 3 silent frames, 15 of speech, 7 silent ones.
"""

from __future__ import annotations

import io
import itertools

import pytest

from voxtral_actors.engine import sphinx_limits
from voxtral_actors.engine import sphinx_worker as wire

FRAME = 960
SILENCE = bytes(FRAME)
SPEECH = b"\1" + bytes(FRAME - 1)


class Hypothesis:
    def __init__(self, hypstr: str) -> None:
        self.hypstr = hypstr


class FakeVad:
    frame_bytes = FRAME

    def is_speech(self, pcm: bytes) -> bool:
        assert len(pcm) == FRAME
        return pcm[0] == 1


class FakeDecoder:
    """Says what it was given; every utterance is started and ended once."""

    def __init__(self, says: str | None = None) -> None:
        self._says = says
        self._given: list[bytes] | None = None
        self._text = ""
        self.total = 0

    def start_utt(self) -> None:
        assert self._given is None
        self._given = []

    def process_raw(self, pcm: bytes) -> None:
        assert self._given is not None
        assert pcm
        self._given.append(pcm)
        self.total += len(pcm)

    def end_utt(self) -> None:
        assert self._given is not None
        runs = itertools.groupby(self._given, key=lambda pcm: len(pcm) == FRAME and pcm[0] == 1)
        self._text = "+".join(f"{'s' if speech else ''}{len(list(run))}" for speech, run in runs)
        self._given = None

    def hyp(self) -> Hypothesis | None:
        text = self._text if self._says is None else self._says
        return Hypothesis(text) if text else None


def serve(
    pcm: bytes, piece: int = 3200, decoder: FakeDecoder | None = None
) -> list[tuple[bytes, int, str]]:
    """Everything that a worker says about a stream."""
    pieces = [pcm[at : at + piece] for at in range(0, len(pcm), piece)] + [b""]
    audio = io.BytesIO(b"".join(wire.LENGTH.pack(len(part)) + part for part in pieces))
    return _serve(audio, decoder)


def _serve(audio: io.BytesIO, decoder: FakeDecoder | None) -> list[tuple[bytes, int, str]]:
    said = io.BytesIO()
    wire.serve(audio, said, wire.Recogniser(decoder or FakeDecoder(), FakeVad()))
    said.seek(0)
    events = []
    while header := said.read(wire.HEADER.size):
        kind, consumed, length = wire.HEADER.unpack(header)
        events.append((kind, consumed, said.read(length).decode()))
    return events


def texts(events: list[tuple[bytes, int, str]]) -> list[str]:
    return [text for kind, _, text in events if kind == wire.TEXT]


@pytest.mark.parametrize("piece", [2, 640, 960, 962, 3200])
def test_pieces_of_any_size_give_the_same_text_and_count(piece: int) -> None:
    pcm = SILENCE * 40 + SPEECH * 30 + SILENCE * 20 + SPEECH * 9 + SILENCE * 20 + bytes(70)
    events = serve(pcm, piece)
    # Before the first segment: 25 kept frames, 7 of them speech. After the last speech: 14 frames.
    assert texts(events) == ["18+s30+14", " 6+s9+14"]
    assert events[0] == (wire.READY, 0, "")
    assert events[-1] == (wire.FINISHED, len(pcm) // 2, "")
    counts = [consumed for _, consumed, _ in events]
    assert counts == sorted(counts)


def test_text_comes_with_the_end_of_its_segment() -> None:
    events = serve(SPEECH * 20 + SILENCE * 100)
    ((consumed, _),) = [(consumed, text) for kind, consumed, text in events if kind == wire.TEXT]
    assert consumed == (20 + sphinx_limits.VOTES - 1) * FRAME // 2


@pytest.mark.parametrize("samples", [0, 1, 479, 480, 481])
def test_end_in_the_middle_of_speech_and_of_a_frame_loses_nothing(samples: int) -> None:
    decoder = FakeDecoder()
    pcm = SPEECH * 50 + bytes(2 * samples)
    assert serve(pcm, decoder=decoder)[-1] == (wire.FINISHED, len(pcm) // 2, "")
    assert decoder.total == len(pcm)


def test_word_too_short_to_start_a_segment_counts_at_the_end_of_the_stream() -> None:
    assert texts(serve(SILENCE * 30 + SPEECH * 3)) == ["22+s3"]
    assert texts(serve(SILENCE * 30 + SPEECH * 2)) == []
    assert texts(serve(SPEECH * 3)) == ["s3"]


def test_clicks_and_silence_say_nothing_but_progress() -> None:
    events = serve((SILENCE * 20 + SPEECH) * 10 + SILENCE * 20)
    assert {kind for kind, _, _ in events} == {wire.READY, wire.PROGRESS, wire.FINISHED}


def test_segment_without_words_says_nothing_and_the_next_one_has_no_space() -> None:
    assert texts(serve(SPEECH * 20 + SILENCE * 30, decoder=FakeDecoder(says=""))) == []
    assert texts(serve(SPEECH * 20 + SILENCE * 30, decoder=FakeDecoder(says=" one "))) == ["one"]


def test_speech_without_a_pause_is_cut_at_the_limit_and_nothing_is_lost() -> None:
    decoder = FakeDecoder()
    pcm = SPEECH * 1500
    assert texts(serve(pcm, decoder=decoder)) == ["s667", " s667", " s166"]
    assert decoder.total == len(pcm)


def test_long_speech_is_cut_at_a_lull() -> None:
    pcm = (SPEECH * 90 + SILENCE * 4) * 5
    first, second = texts(serve(pcm))
    assert first.endswith("s90+3")
    assert second.startswith(" 1+s90")


def test_parent_that_is_gone_ends_the_worker_without_a_last_event() -> None:
    for cut in range(1, 9):
        audio = io.BytesIO((wire.LENGTH.pack(4) + bytes(4))[:cut])
        kinds = [kind for kind, _, _ in _serve(audio, None)]
        assert kinds == [wire.READY]
