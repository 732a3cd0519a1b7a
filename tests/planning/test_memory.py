"""The KV cache of the planner against counts made by hand from the dimensions of the model.

The comparison with what a running vLLM reports is in `tests/vllm/test_planning.py`.
"""

from __future__ import annotations

import attrs
import pytest

from voxtral_actors.planning import memory
from voxtral_actors.planning.dimensions import VOXTRAL_MINI_4B

MIB = 1024**2


def test_the_weights_are_those_of_the_published_file() -> None:
    """8.86 GB of bfloat16 in consolidated.safetensors; norms and biases are left out."""
    assert 2 * VOXTRAL_MINI_4B.weights == pytest.approx(8.86e9, rel=0.01)


def test_a_block_is_a_page_for_each_of_32_layers() -> None:
    """The encoder: 16 tokens, 4 positions each, 32 heads of 64, keys and values, 2 bytes."""
    pool = memory.pool(VOXTRAL_MINI_4B, kv_bytes=2, block_tokens=16)

    assert pool.block_bytes == 32 * (16 * 4 * 2 * 32 * 64 * 2) == 16 * MIB
    encoder, decoder = pool.groups
    assert (encoder.count, encoder.tokens, encoder.window) == (1, 16, 189)
    assert (decoder.count, decoder.tokens, decoder.window) == (1, 128, 8192)


def test_a_stream_holds_its_tokens_and_no_more_than_the_windows() -> None:
    pool = memory.pool(VOXTRAL_MINI_4B, kv_bytes=2, block_tokens=16)

    def blocks(tokens: int) -> int:
        return pool.stream_blocks(tokens, 76)

    assert blocks(128) == (8 + 1) + (1 + 1)
    assert blocks(7500) == (17 + 1) + (59 + 1)
    assert blocks(8192 + 76) == blocks(67_500) == (17 + 1) + (65 + 1)


def test_one_block_is_not_for_streams() -> None:
    pool = memory.pool(VOXTRAL_MINI_4B, kv_bytes=2, block_tokens=16)
    one = pool.stream_blocks(128, 76) * pool.block_bytes

    assert pool.streams(one, 128, 76) == 0
    assert pool.streams(one + pool.block_bytes, 128, 76) == 1
    assert pool.streams(0, 128, 76) == 0


def test_half_the_bytes_are_twice_the_blocks_and_two_gpus_halve_them_again() -> None:
    whole = memory.pool(VOXTRAL_MINI_4B, kv_bytes=2, block_tokens=16)
    half = memory.pool(VOXTRAL_MINI_4B, kv_bytes=1, block_tokens=16)
    quarter = memory.pool(VOXTRAL_MINI_4B, kv_bytes=1, block_tokens=16, tensor_parallel=2)

    assert whole.block_bytes == 2 * half.block_bytes == 4 * quarter.block_bytes
    assert whole.groups == half.groups == quarter.groups


def test_stacks_of_very_different_depth_are_cut_into_groups() -> None:
    deep = attrs.evolve(VOXTRAL_MINI_4B.encoder, n_layers=60)
    pool = memory.pool(attrs.evolve(VOXTRAL_MINI_4B, encoder=deep), kv_bytes=2, block_tokens=16)

    encoder, decoder = pool.groups
    assert pool.block_bytes == 26 * (16 * 4 * 2 * 32 * 64 * 2)
    assert (encoder.count, decoder.count) == (3, 1)
