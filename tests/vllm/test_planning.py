"""The capacity planner against what a running vLLM says of its KV cache."""

from __future__ import annotations

from pathlib import Path

from tests.vllm.vllm_harness import KV_CACHE_GB, SETTINGS, SharedVllm
from voxtral_actors.planning import memory, plan
from voxtral_actors.planning.dimensions import read


def test_it_counts_blocks_and_streams_as_vllm_does(shared: SharedVllm, model: Path) -> None:
    vllm = shared.engine.vllm
    cache = vllm.llm.vllm_config.cache_config
    in_flight = 2 * len(vllm.layout.prefix)
    reported = shared.call(
        lambda: vllm.llm.collective_rpc("voxtral_streams", args=(in_flight,)),
    )

    pool = memory.pool(read(model / "params.json"), kv_bytes=2, block_tokens=cache.block_size)
    size = float(KV_CACHE_GB) * memory.GIB

    assert cache.num_gpu_blocks == size // pool.block_bytes
    longest = int(SETTINGS["VLLM_MAX_MODEL_LEN"])
    assert pool.streams(size, longest, in_flight) == int(min(reported))


def test_it_knows_the_padding_of_a_stream(shared: SharedVllm) -> None:
    layout = shared.engine.vllm.layout
    delay = len(layout.prefix) - plan.prefix_tokens(0)

    assert len(layout.prefix) == plan.prefix_tokens(layout.delay_ms)
    assert layout.right_pad == (delay + 1 + plan.RIGHT_PAD_TOKENS) * layout.step
