"""Runs inside vLLM's workers: the front of the audio encoder takes all streams of a step at once.

The front is what makes the encoder's input of samples: the mel spectrogram and two convolutions.
vLLM batches what comes behind it, but calls the front for one stream after the other. All frames of
a step have one length, save the first of a stream, so they are one tensor with a row for each, and
vLLM's own methods take such a tensor as well as one row. A row comes out as it would alone, to the
bit where the libraries below keep to one order of summing.

No public interface is as deep as that. So the worker compares before the first stream
(`_why_not`): if our way of calling hears anything else than vLLM's way, or cannot be called, vLLM's
stays.

This file imports nothing of this package, and torch only where it runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

AT_ONCE = 1 << 20
"""Samples in one go, a minute of them: short frames of nearly five hundred streams, or the first
ones of twenty. With the real model's 1280 channels the front needs some 80 bytes for each."""

CLOSE = 0.02
"""The part of a result's largest value that another one may differ by: about three steps of
bfloat16. Another number of rows may make a GPU's library take another algorithm."""


def install(model: Any, lengths: Iterable[int]) -> str:
    """Have a model's front take streams together; frames will have these lengths, in samples.

    Returns why it does not; empty if it does.
    """
    try:
        front = Front(model)
        if reason := _why_not(front, sorted(lengths)):
            return reason
    except Exception as error:  # vLLM serves as well without it, only slower
        return f"{type(error).__name__}: {error}"
    model.embed_multimodal = front
    return ""


class Front:
    """In place of the `embed_multimodal` of a Voxtral Realtime."""

    def __init__(self, model: Any) -> None:
        self.theirs: Callable[..., Any] = model.embed_multimodal
        self.encoder = model.whisper_encoder
        self._convolve = self.encoder.whisper_encoder.forward_conv
        self._pool = model.config.audio_config.block_pool_size

    def __call__(self, **inputs: Any) -> Any:
        """Samples of each stream in, what the encoder makes tokens of out: (tokens, width) each."""
        audio = inputs.get("audio_arrays")
        if audio is None or len(audio) < 2:
            return self.theirs(**inputs)
        return self.together(audio)

    def together(self, audio: Sequence[Any]) -> list[Any]:
        import torch

        places = defaultdict(list)
        for place, samples in enumerate(audio):
            places[len(samples)].append(place)
        heard: list[Any] = [None] * len(audio)
        for length, of_one_length in places.items():
            most = max(AT_ONCE // length, 1)
            for begin in range(0, len(of_one_length), most):
                some = of_one_length[begin : begin + most]
                rows = self._front(torch.stack([audio[place] for place in some]))
                for place, row in zip(some, rows, strict=True):
                    heard[place] = row
        return heard

    def _front(self, samples: Any) -> Any:
        """(streams, samples) in, (streams, tokens, width) out; what does not fill a token is left
        out at the left, as vLLM does."""
        mel = self.encoder.compute_whisper_melspec(samples).to(self.encoder.dtype)
        mel = mel[..., mel.shape[-1] % 2 :]
        # It takes a list of streams. This is one entry with a dimension more.
        states = self._convolve([mel])
        states = states[:, states.shape[1] % self._pool :]
        streams, length, width = states.shape
        return states.reshape(streams, length // self._pool, width * self._pool)


def _why_not(front: Front, lengths: Sequence[int]) -> str:
    """Compare both ways on noise, two streams of each length: one loud, one next to silent, for the
    loud one must not drown it."""
    import torch

    device, dtype = front.encoder.mel_filters.device, front.encoder.dtype
    dice = torch.Generator().manual_seed(0)
    audio = [
        torch.randn(length, generator=dice).mul(0.001**number).to(device, dtype)
        for number, length in enumerate([*lengths, *lengths])
    ]
    with torch.inference_mode():
        pairs = zip(front.theirs(audio_arrays=audio), front.together(audio), strict=True)
        for number, (one, other) in enumerate(pairs):
            if one.shape != other.shape:
                return f"{len(audio[number])} samples give {other.shape}, not {one.shape}"
            away = float((one.float() - other.float()).abs().max() / one.float().abs().max())
            if not away <= CLOSE:  # nor not a number
                return f"{len(audio[number])} samples are heard otherwise, by {away:.2g}"
    return ""
