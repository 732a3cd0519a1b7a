"""A Voxtral Realtime that fits a test: two layers, random weights, made on the spot.

The files are those of a real snapshot in the mistral format (params.json, tekken.json,
consolidated.safetensors), so the server loads them with the settings of a real one. The tokenizer
is the first part of the one that mistral-common ships. Weights are normal, scaled by the fan-in so
that activations keep their size: with smaller ones every answer would be the same token, and with
these the text depends on the audio, which is all that the tests need of it.

    python tests/vllm/tiny_model.py FOLDER
"""

from __future__ import annotations

import json
import math
import sys
from importlib import resources
from pathlib import Path
from typing import Any

SEED = 20_260_206
VOCAB_KEPT = 3096
SPECIAL = 1000
VOCAB = VOCAB_KEPT + SPECIAL
TEXT = {"dim": 128, "n_layers": 2, "head_dim": 64, "hidden_dim": 256, "n_heads": 2, "n_kv_heads": 1}
ENCODER = {"dim": 128, "n_layers": 2, "head_dim": 64, "hidden_dim": 256, "n_heads": 2}
DOWNSAMPLE = 4
T_COND = 32
MEL_BINS = 128

STREAMING = {32: "[STREAMING_PAD]", 33: "[STREAMING_WORD]"}
"""Where vLLM's model expects them; the other special tokens fill the ranks around them."""


def make(folder: Path, *, delay_ms: int = 480, seed: int = SEED) -> Path:
    """Write the model into `folder`, which is made; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "params.json", _params())
    _write(folder / "tekken.json", _tekken(delay_ms))
    _save_weights(folder / "consolidated.safetensors", seed)
    return folder


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _params() -> dict[str, Any]:
    encoder = ENCODER | {
        "audio_encoding_args": {
            "sampling_rate": 16_000,
            "frame_rate": 12.5,
            "num_mel_bins": MEL_BINS,
            "hop_length": 160,
            "window_size": 400,
            "chunk_length_s": None,
            "global_log_mel_max": 1.5,
        },
        "n_kv_heads": ENCODER["n_heads"],
        "vocab_size": VOCAB,
        "use_biases": True,
        "use_cache": False,
        "rope_theta": 1e6,
        "causal": True,
        "norm_eps": 1e-5,
        "pos_embed": "rope",
        "max_source_positions": None,
        "ffn_type": "swiglu",
        "norm_type": "rms_norm",
        "sliding_window": 750,
    }
    return TEXT | {
        "use_biases": False,
        "causal": True,
        "rope_theta": 1e6,
        "norm_eps": 1e-5,
        "vocab_size": VOCAB,
        "model_parallel": 1,
        "tied_embeddings": True,
        "sliding_window": 8192,
        "model_max_length": 131_072,
        # Without it vLLM looks for a config.json, twice in each process and with a pause.
        "max_position_embeddings": 131_072,
        "ada_rms_norm_t_cond": True,
        "ada_rms_norm_t_cond_dim": T_COND,
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": encoder,
                "downsample_args": {"downsample_factor": DOWNSAMPLE},
            }
        },
    }


def _tekken(delay_ms: int) -> dict[str, Any]:
    source = resources.files("mistral_common") / "data" / "tekken_240911.json"
    tekken: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    tekken["vocab"] = tekken["vocab"][:VOCAB_KEPT]
    tekken["config"] |= {
        "num_vocab_tokens": VOCAB_KEPT,
        "default_vocab_size": VOCAB,
        "default_num_special_tokens": SPECIAL,
        "version": "v13",
    }
    tekken["special_tokens"] = [
        {"rank": rank, "token_str": name, "is_control": True}
        for rank, name in enumerate(_special_tokens())
    ]
    tekken.pop("image", None)
    tekken.pop("multimodal", None)
    tekken["audio"] = {
        "sampling_rate": 16_000,
        "frame_rate": 12.5,
        "audio_encoding_config": {"num_mel_bins": MEL_BINS, "hop_length": 160, "window_size": 400},
        "transcription_delay_ms": delay_ms,
        "streaming_look_ahead_ms": 2.5,
        "streaming_look_back_ms": 52.5,
        "streaming_n_left_pad_tokens": 32,
        "transcription_format": "streaming",
    }
    return tekken


def _special_tokens() -> list[str]:
    from mistral_common.tokens.tokenizers.base import SpecialTokens

    names = [token.value for token in SpecialTokens if token.value not in STREAMING.values()]
    first = min(STREAMING)
    names += [f"<SPECIAL_{rank}>" for rank in range(len(names), first)]
    return [*names[:first], *STREAMING.values(), *names[first:]]


def _shapes() -> dict[str, tuple[int, ...]]:
    """Every weight by its name in a checkpoint of the mistral format."""
    dim, heads = TEXT["dim"], TEXT["n_heads"] * TEXT["head_dim"]
    kv, hidden = TEXT["n_kv_heads"] * TEXT["head_dim"], TEXT["hidden_dim"]
    shapes: dict[str, tuple[int, ...]] = {"norm.weight": (dim,)}
    for layer in range(TEXT["n_layers"]):
        shapes |= _block(f"layers.{layer}", dim, heads, kv, hidden)
        shapes[f"layers.{layer}.ada_rms_norm_t_cond.0.weight"] = (T_COND, dim)
        shapes[f"layers.{layer}.ada_rms_norm_t_cond.2.weight"] = (dim, T_COND)

    audio = "mm_streams_embeddings.embedding_module"
    shapes[f"{audio}.tok_embeddings.weight"] = (VOCAB, dim)
    width, heads = ENCODER["dim"], ENCODER["n_heads"] * ENCODER["head_dim"]
    shapes[f"{audio}.audio_language_projection.0.weight"] = (dim, width * DOWNSAMPLE)
    shapes[f"{audio}.audio_language_projection.2.weight"] = (dim, dim)
    encoder = f"{audio}.whisper_encoder"
    for index, channels in enumerate((MEL_BINS, width)):
        shapes[f"{encoder}.conv_layers.{index}.conv.weight"] = (width, channels, 3)
        shapes[f"{encoder}.conv_layers.{index}.conv.bias"] = (width,)
    for layer in range(ENCODER["n_layers"]):
        name = f"{encoder}.transformer.layers.{layer}"
        shapes |= _block(name, width, heads, heads, ENCODER["hidden_dim"])
        for biased, size in (("wq", heads), ("wv", heads), ("wo", width)):
            shapes[f"{name}.attention.{biased}.bias"] = (size,)
        shapes[f"{name}.feed_forward.w2.bias"] = (width,)
    shapes[f"{encoder}.transformer.norm.weight"] = (width,)
    return shapes


def _block(name: str, dim: int, heads: int, kv: int, hidden: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.attention.wq.weight": (heads, dim),
        f"{name}.attention.wk.weight": (kv, dim),
        f"{name}.attention.wv.weight": (kv, dim),
        f"{name}.attention.wo.weight": (dim, heads),
        f"{name}.feed_forward.w1.weight": (hidden, dim),
        f"{name}.feed_forward.w2.weight": (dim, hidden),
        f"{name}.feed_forward.w3.weight": (hidden, dim),
        f"{name}.attention_norm.weight": (dim,),
        f"{name}.ffn_norm.weight": (dim,),
    }


def _save_weights(path: Path, seed: int) -> None:
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in _shapes().items():
        noise = torch.randn(shape, generator=random)
        if len(shape) == 1:
            weight = 0.1 * noise + (0.0 if name.endswith("bias") else 1.0)
        else:
            weight = noise * 2 / math.sqrt(math.prod(shape[1:]))
        weights[name] = weight.to(torch.bfloat16).contiguous()
    save_file(weights, path)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
