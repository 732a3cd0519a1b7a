"""The dimensions of a Voxtral Realtime that decide what it costs: from the model's params.json.

Nothing here knows about GPUs or vLLM; `weights` counts the parameters of the two transformers and
of what joins them, as they are laid out in the model's file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs


class ModelFileError(Exception):
    """A params.json that cannot be read as one of a Voxtral Realtime; the message says why."""


@attrs.frozen(kw_only=True)
class Transformer:
    """One of the two stacks. Sizes are elements; `window` is in its own positions."""

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    window: int

    @property
    def weights(self) -> int:
        """Parameters of all layers: attention, SwiGLU, norms."""
        query = self.dim * self.n_heads * self.head_dim
        key_value = self.dim * self.n_kv_heads * self.head_dim
        return self.n_layers * (2 * query + 2 * key_value + 3 * self.dim * self.hidden_dim)

    @property
    def kv_elements(self) -> int:
        """Keys and values of one position in one layer."""
        return 2 * self.n_kv_heads * self.head_dim

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> Self:
        return cls(
            **{name: int(params[name]) for name in _NUMBERS}, window=int(params["sliding_window"])
        )


_NUMBERS = ("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim")


@attrs.frozen(kw_only=True)
class Dimensions:
    """A model: the audio encoder, the decoder, and how many encoder positions make one token."""

    encoder: Transformer
    decoder: Transformer
    downsample: int
    vocabulary: int
    mel_bins: int

    @property
    def weights(self) -> int:
        """Parameters in all: embeddings are tied, so they count once."""
        encoder, decoder = self.encoder, self.decoder
        stem = 3 * encoder.dim * (self.mel_bins + encoder.dim)
        adapter = decoder.dim * (self.downsample * encoder.dim + decoder.dim)
        embeddings = self.vocabulary * decoder.dim
        return encoder.weights + decoder.weights + stem + adapter + embeddings


VOXTRAL_MINI_4B = Dimensions(
    encoder=Transformer(
        dim=1280,
        n_layers=32,
        n_heads=32,
        n_kv_heads=32,
        head_dim=64,
        hidden_dim=5120,
        window=750,
    ),
    decoder=Transformer(
        dim=3072,
        n_layers=26,
        n_heads=32,
        n_kv_heads=8,
        head_dim=128,
        hidden_dim=9216,
        window=8192,
    ),
    downsample=4,
    vocabulary=131_072,
    mel_bins=128,
)
"""mistralai/Voxtral-Mini-4B-Realtime-2602, from its params.json."""


def read(path: Path) -> Dimensions:
    """The dimensions in a params.json.

    Raises:
        ModelFileError: it cannot be read, or is not that of a Voxtral Realtime.
    """
    try:
        params = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ModelFileError(f"{path} is not JSON: {error}") from error
    try:
        whisper = params["multimodal"]["whisper_model_args"]
        encoder = whisper["encoder_args"]
        return Dimensions(
            encoder=Transformer.read(encoder),
            decoder=Transformer.read(params),
            downsample=int(whisper["downsample_args"]["downsample_factor"]),
            vocabulary=int(params["vocab_size"]),
            mel_bins=int(encoder["audio_encoding_args"]["num_mel_bins"]),
        )
    except KeyError as error:
        raise ModelFileError(f"{path} is not of a Voxtral Realtime: no {error}") from error
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path} is not of a Voxtral Realtime: {error}") from error
