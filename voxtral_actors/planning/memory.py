"""How many streams the memory of a GPU holds, counted the way vLLM 0.32 lays out its KV cache.

vLLM has one pool of blocks for both transformers. A block has the same number of bytes for each: a
page for every layer of a group. The transformer whose page is smaller gets more tokens into a
block, and where the layers differ by less than half, the shorter stack is padded to the longer.
(`vllm/v1/core/kv_cache_utils.py`: `unify_kv_cache_spec_page_size` and
`_get_kv_cache_groups_uniform_page_size`; `SlidingWindowSpec.max_admission_blocks_per_request` in
`vllm/v1/kv_cache_interface.py` is the formula for the blocks of a stream.)

The encoder has several positions for each token; vLLM counts its window in tokens, and one more.
"""

from __future__ import annotations

import math

import attrs

from voxtral_actors.planning.dimensions import Dimensions, Transformer

GIB = 1024**3
KV_BYTES = {"auto": 2, "bfloat16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}
"""VLLM_KV_CACHE_DTYPE -> bytes of one element; the weights are bfloat16, and `auto` is as they."""
WEIGHT_BYTES = 2
MAX_PADDING = 1.5
"""Layers of the longer stack over those of the shorter: below, vLLM pads; else it cuts groups."""


@attrs.frozen
class Group:
    """Layers that share block tables: `count` such groups, each block of theirs `tokens` long."""

    count: int
    tokens: int
    window: int
    """In tokens."""

    def blocks(self, max_tokens: int, in_flight: int) -> int:
        """The most blocks that one stream holds."""
        held = min(self.window - 1 + in_flight, max_tokens)
        return self.count * (math.ceil(held / self.tokens) + 1)


@attrs.frozen
class Pool:
    """vLLM's KV cache for a model: the bytes of a block, and who draws on them."""

    block_bytes: int
    groups: tuple[Group, ...]

    def stream_blocks(self, max_tokens: int, in_flight: int) -> int:
        """Blocks of a stream of `max_tokens` tokens with `in_flight` of them not yet settled."""
        return sum(group.blocks(max_tokens, in_flight) for group in self.groups)

    def streams(self, memory: float, max_tokens: int, in_flight: int) -> int:
        """Streams that fit into `memory` bytes. One block is vLLM's own, the null block."""
        blocks = int(memory // self.block_bytes)
        return max(0, blocks - 1) // self.stream_blocks(max_tokens, in_flight)


def pool(model: Dimensions, *, kv_bytes: int, block_tokens: int, tensor_parallel: int = 1) -> Pool:
    """Lay out the KV cache on one of `tensor_parallel` GPUs.

    `block_tokens` is vLLM's block size: 16 on NVIDIA GPUs, 128 on CPUs.
    """

    def page(stack: Transformer, positions: int) -> int:
        return block_tokens * positions * stack.kv_elements * kv_bytes // tensor_parallel

    encoder, decoder = model.encoder, model.decoder
    pages = page(encoder, model.downsample), page(decoder, 1)
    widest = max(pages)
    layers = encoder.n_layers, decoder.n_layers
    size = max(layers) if max(layers) < MAX_PADDING * min(layers) else min(layers)
    windows = math.ceil(encoder.window / model.downsample) + 1, decoder.window
    groups = tuple(
        Group(
            count=math.ceil(depth / size),
            # A page that does not divide the widest is padded and keeps its tokens.
            tokens=block_tokens * (1 if widest % own else widest // own),
            window=window,
        )
        for depth, own, window in zip(layers, pages, windows, strict=True)
    )
    return Pool(size * widest, groups)
