"""The plan: how many live streams a GPU takes, what binds, and how many sessions share them.

Four limits, and the least of them counts: the KV cache, the time of a step, vLLM's encoder cache,
and the tokens of a batch. The settings that go with the plan are part of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from voxtral_actors.engine.port import with_spare
from voxtral_actors.planning import memory, sharing, steps
from voxtral_actors.planning.dimensions import Dimensions
from voxtral_actors.planning.gpus import Gpu

TOKENS_PER_SECOND = 12.5
LEFT_PAD_TOKENS = 32
"""Silence in front of the audio that Voxtral Realtime was trained with."""
RIGHT_PAD_TOKENS = 10
"""Silence behind the audio, beside the delay, for a long last word (mistral-common)."""
GPU_BLOCK_TOKENS = 16
WORKSPACE = 2.0
"""GiB beside weights and KV cache: activations of the largest batch, CUDA graphs, NCCL. [guess]"""
BATCH_CHOICES = (512, 1024, 2048, 4096, 8192, 16384)


@attrs.frozen(kw_only=True)
class Load:
    """What is to be carried. Times in seconds, shares in 0 .. 1."""

    utterance: float
    """The longest utterance for which a stream must have room."""
    duty: float
    """The share of its time in which a session has an utterance open."""
    refused: float
    """The share of utterances that may find no stream free."""
    delay_ms: int


@attrs.frozen(kw_only=True)
class Hardware:
    """`utilization` is vLLM's share of the GPU's memory; `kv_dtype` a key of `memory.KV_BYTES`."""

    gpu: Gpu
    gpus: int
    utilization: float
    kv_dtype: str


@attrs.frozen
class Limit:
    """What bounds the number of streams: its name, how many it allows, and where that is from."""

    name: str
    streams: int
    reason: str


@attrs.frozen(kw_only=True)
class Plan:
    """See the module. `step_ms` is a step with all `streams` in it, and the `spare` ones."""

    limits: tuple[Limit, ...]
    streams: int
    spare: int
    """Of what fits, kept for utterances that go over to a new stream."""
    sessions: int
    step_ms: float
    step_measured: bool
    weights_gib: float
    kv_cache_gib: float
    stream_gib: float
    settings: Mapping[str, str]

    @property
    def binding(self) -> Limit:
        return min(self.limits, key=lambda limit: limit.streams)


def prefix_tokens(delay_ms: int) -> int:
    """Tokens of a stream's first step: the beginning-of-text, the left padding, the delay."""
    return 1 + LEFT_PAD_TOKENS + round(delay_ms * TOKENS_PER_SECOND / 1000)


def max_model_len(load: Load) -> int:
    """Tokens of a stream with the longest utterance, padding included."""
    delay = round(load.delay_ms * TOKENS_PER_SECOND / 1000)
    spoken = math.ceil(load.utterance * TOKENS_PER_SECOND)
    return prefix_tokens(load.delay_ms) + spoken + delay + RIGHT_PAD_TOKENS + 1


def make(
    model: Dimensions, hardware: Hardware, load: Load, measured: Mapping[int, float] | None = None
) -> Plan:
    """Plan one server on `hardware`.

    `measured` is {streams in a step: milliseconds}, two or more of them; it replaces the estimate.

    Raises:
        ValueError: `measured` makes no line that grows.
    """
    gpu, gpus = hardware.gpu, hardware.gpus
    kv_bytes = memory.KV_BYTES[hardware.kv_dtype]
    weights = model.weights * memory.WEIGHT_BYTES / gpus
    free = gpu.memory * hardware.utilization * memory.GIB - weights - WORKSPACE * memory.GIB
    pool = memory.pool(
        model, kv_bytes=kv_bytes, block_tokens=GPU_BLOCK_TOKENS, tensor_parallel=gpus
    )
    prefix, tokens = prefix_tokens(load.delay_ms), max_model_len(load)
    in_flight = 2 * prefix
    stream_bytes = pool.stream_blocks(tokens, in_flight) * pool.block_bytes
    if measured:
        step = steps.measured(measured)
    else:
        step = steps.estimated(gpu, weights, _read_in_a_step(model, tokens, kv_bytes) / gpus)
    by_memory = pool.streams(max(free, 0), tokens, in_flight)
    batch = _batch(min(by_memory, step.live()), prefix)
    limits = (
        Limit("KV cache", by_memory, f"{stream_bytes / memory.GIB:.2f} GiB a stream"),
        Limit("step time", step.live(), f"{steps.BUSY:.0%} of {steps.FRAME_MS:g} ms"),
        Limit("encoder cache", batch // prefix, f"{batch} batched tokens, {prefix} a first frame"),
    )
    fit = min(limit.streams for limit in limits)
    streams, spare = with_spare(fit, fit) if fit else (0, 0)
    sessions = sharing.sessions(streams, load.duty, load.refused)
    return Plan(
        limits=limits,
        streams=streams,
        spare=spare,
        sessions=sessions,
        step_ms=step.ms(streams + spare),
        step_measured=bool(measured),
        weights_gib=weights / memory.GIB,
        kv_cache_gib=max(free, 0) / memory.GIB,
        stream_gib=stream_bytes / memory.GIB,
        settings={
            "MAX_CONCURRENT_CONNECTIONS": str(sessions),
            "VLLM_MAX_NUM_SEQS": str(streams),
            "VLLM_MAX_MODEL_LEN": str(tokens),
            "VLLM_MAX_NUM_BATCHED_TOKENS": str(batch),
            "VLLM_GPU_MEMORY_UTILIZATION": f"{hardware.utilization:g}",
            "VLLM_KV_CACHE_DTYPE": hardware.kv_dtype,
            "VLLM_TENSOR_PARALLEL_SIZE": str(gpus),
            "VOXTRAL_TRANSCRIPTION_DELAY_MS": str(load.delay_ms),
        },
    )


def _batch(streams: int, prefix: int) -> int:
    """Batched tokens with which all streams may begin at once, for as far as choices go."""
    return next((size for size in BATCH_CHOICES if size >= streams * prefix), BATCH_CHOICES[-1])


def _read_in_a_step(model: Dimensions, tokens: int, kv_bytes: int) -> float:
    """Bytes of keys and values that the step of a stream reads when it is as long as it may be."""
    encoder, decoder = model.encoder, model.decoder
    heard = min(encoder.window, tokens * model.downsample)
    elements = encoder.n_layers * encoder.kv_elements * heard
    elements += decoder.n_layers * decoder.kv_elements * min(decoder.window, tokens)
    return elements * kv_bytes
