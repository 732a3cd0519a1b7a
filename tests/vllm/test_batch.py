"""The front of vLLM's audio encoder takes all streams at once, and hears each as it would alone.

The encoder is vLLM's own, with the weights of the tiny model's size, and without an engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from voxtral_actors.engine import vllm_batch

WIDTH, POOL, BINS = 64, 4, 128
SHORT, FIRST = 2160, 49_960
"""Samples of a frame, and of the first one of a stream."""


class Model:
    """What `vllm_batch` sees of a Voxtral Realtime; its `embed_multimodal` is vLLM's."""

    def __init__(self, *, normalised_by_itself: bool = False) -> None:
        import torch
        from vllm.model_executor.models.voxtral import VoxtralEncoderModel
        from vllm.model_executor.models.voxtral_realtime import VoxtralRealtimeGeneration
        from vllm.model_executor.models.whisper_causal import (
            WhisperCausalConv1d,
            WhisperCausalEncoder,
        )

        torch.manual_seed(1)
        audio = SimpleNamespace(
            window_size=400,
            hop_length=160,
            global_log_mel_max=None if normalised_by_itself else 1.5,
            block_pool_size=POOL,
        )
        self.config = SimpleNamespace(audio_config=audio)
        convolutions = [
            WhisperCausalConv1d(BINS, WIDTH, kernel_size=3),
            WhisperCausalConv1d(WIDTH, WIDTH, kernel_size=3, stride=2),
        ]
        encoder: Any = WhisperCausalEncoder.__new__(WhisperCausalEncoder)
        torch.nn.Module.__init__(encoder)
        encoder.conv1, encoder.conv2 = (layer.to(torch.bfloat16) for layer in convolutions)
        encoder.total_stride = 2
        self.calls: list[tuple[int, ...]] = []

        def melspec(samples: Any) -> Any:
            self.calls.append(tuple(samples.shape))
            return VoxtralEncoderModel.compute_whisper_melspec(self.whisper_encoder, samples)

        self.whisper_encoder: Any = SimpleNamespace(
            config=audio,
            dtype=torch.bfloat16,
            mel_filters=torch.rand(201, BINS),
            whisper_encoder=encoder,
            compute_whisper_melspec=melspec,
        )
        self._parse_and_validate_audio_arrays = lambda **inputs: (
            VoxtralRealtimeGeneration._parse_and_validate_audio_arrays(self, **inputs)
        )
        self.embed_multimodal: Any = lambda **inputs: VoxtralRealtimeGeneration.embed_multimodal(
            self, **inputs
        )
        self.theirs: Any = self.embed_multimodal


def noise(lengths: Sequence[int]) -> list[Any]:
    import torch

    return [
        (0.1 + 0.02 * n) * torch.randn(length).to(torch.bfloat16)
        for n, length in enumerate(lengths)
    ]


@pytest.fixture
def model() -> Iterator[Model]:
    import torch

    with torch.inference_mode():
        made = Model()
        assert vllm_batch.install(made, (FIRST, SHORT)) == ""
        made.calls.clear()
        yield made


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    import torch

    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize(
    "lengths",
    [[SHORT] * 2, [SHORT] * 16, [FIRST, SHORT, SHORT, FIRST, SHORT], [FIRST] * 3, [SHORT, 3000]],
    ids=str,
)
def test_each_stream_is_heard_as_it_is_alone(model: Model, lengths: list[int]) -> None:
    audio = noise(lengths)
    together = model.embed_multimodal(audio_arrays=audio)

    assert model.calls == [
        (lengths.count(length), length) for length in dict.fromkeys(lengths)
    ]  # one call for all of a length
    assert same(together, [model.theirs(audio_arrays=[one])[0] for one in audio])
    assert len({tuple(row.flatten().tolist()) for row in together}) == len(lengths)


def test_vllm_may_hand_over_one_tensor(model: Model) -> None:
    import torch

    audio = noise([SHORT] * 5)

    assert same(
        model.embed_multimodal(audio_arrays=torch.stack(audio)),
        model.embed_multimodal(audio_arrays=audio),
    )


def test_memory_is_bounded(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_batch, "AT_ONCE", 3 * SHORT)
    audio = noise([SHORT] * 7 + [FIRST] * 2)
    together = model.embed_multimodal(audio_arrays=audio)

    assert [rows for rows, _ in model.calls] == [3, 3, 1, 1, 1]
    assert same(together, [model.theirs(audio_arrays=[one])[0] for one in audio])


def test_one_stream_and_none_go_vllms_way(model: Model) -> None:
    (alone,) = noise([SHORT])

    assert same(model.embed_multimodal(audio_arrays=[alone]), model.theirs(audio_arrays=[alone]))
    assert model.calls == [(SHORT,), (SHORT,)]
    assert model.embed_multimodal() == []


def test_a_model_that_streams_would_disturb_keeps_vllms_way() -> None:
    """Its spectrogram is measured by the loudest of all that it is given."""
    model = Model(normalised_by_itself=True)
    theirs = model.embed_multimodal

    why = vllm_batch.install(model, (FIRST, SHORT))

    assert "2160 samples are heard otherwise, by 1" in why
    assert model.embed_multimodal is theirs


def test_so_does_one_that_is_not_as_expected() -> None:
    model = Model()
    theirs, model.whisper_encoder.whisper_encoder = model.embed_multimodal, None

    assert vllm_batch.install(model, (FIRST, SHORT)).startswith("AttributeError: ")
    assert model.embed_multimodal is theirs
