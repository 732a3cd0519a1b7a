"""What vLLM reports about each step, as the figures of `/metrics`."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.define
class RankFigures:
    """The latest figures of one engine process (there are several with data parallel)."""

    running: int = 0
    """Requests in the batch of the last step."""
    waiting: int = 0
    """Requests outside of it: those between two frames, and those that vLLM holds back."""
    kv_cache_usage: float = 0.0
    """Share of the KV cache in use, 0 to 1."""
    preempted: int = 0
    """Requests that lost their place in the KV cache so far; with admission right, none."""
    steps: int = 0


class Figures:
    """All ranks of one engine. Written in the loop's thread, read in any."""

    def __init__(self) -> None:
        self.ranks: dict[int, RankFigures] = {}
        self.flat_sessions = False
        """Whether the plugin keeps the cost of a step from growing with a session's age."""
        self.batched_audio = False
        """Whether the front of the encoder takes all streams of a step at once."""
        self.frames = 0
        """Frames heard so far."""

    def record(self, rank: int, scheduler_stats: Any, preempted: int) -> None:
        figures = self.ranks.setdefault(rank, RankFigures())
        figures.steps += 1
        if scheduler_stats is not None:
            figures.running = scheduler_stats.num_running_reqs
            figures.waiting = (
                scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            )
            figures.kv_cache_usage = scheduler_stats.kv_cache_usage
        figures.preempted += preempted

    def totals(self) -> dict[str, float]:
        """Name -> value; the KV cache usage is that of the fullest rank."""
        ranks = list(self.ranks.values())
        return {
            "vllm_flat_sessions": float(self.flat_sessions),
            "vllm_batched_audio": float(self.batched_audio),
            "vllm_frames_total": self.frames,
            "vllm_steps_total": sum(rank.steps for rank in ranks),
            "vllm_requests_running": sum(rank.running for rank in ranks),
            "vllm_requests_waiting": sum(rank.waiting for rank in ranks),
            "vllm_preemptions_total": sum(rank.preempted for rank in ranks),
            "vllm_kv_cache_usage": max((rank.kv_cache_usage for rank in ranks), default=0.0),
        }
