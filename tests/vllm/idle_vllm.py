"""vLLM's scheduler without its processes, and a worker that does no arithmetic.

`IdleVllm` drives a real scheduler as vLLM's engine core does: the plain one, which waits for each
step, or the one of GPUs, which runs one step ahead of the answers. The worker holds the lists that
a real one holds, fails where a real one would, and each of its tokens depends on all audio that the
session has heard. So a hundred steps take milliseconds, and what needs a GPU to happen happens.

Imports vllm: for tests that do, inside their functions.
"""

from __future__ import annotations

import copy
import logging
import zlib
from collections import deque
from types import SimpleNamespace
from typing import Any

import torch
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFeatureSpec,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    PlaceholderRange,
)
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from voxtral_actors.engine import vllm_plugin
from voxtral_actors.engine.vllm_plugin import KEY, State

SCHEDULERS = {"waits": (Scheduler, 1), "runs ahead": (AsyncScheduler, 2)}
BLOCK = 16
PREFIX = 39
LOG = logging.getLogger("vllm.voxtral_actors")


class IdleVllm:
    """One vLLM."""

    def __init__(self, config: Any, kind: str, *, on: bool, blocks: int = 400) -> None:
        config = copy.copy(config)
        config.cache_config = copy.copy(config.cache_config)
        config.cache_config.num_gpu_blocks = blocks
        config.additional_config = vllm_plugin.additional_config(on=on)
        scheduler_class, self._ahead = SCHEDULERS[kind]
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
        self.scheduler: Any = scheduler_class(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
            structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK,
            hash_block_size=BLOCK,
            log_stats=False,
        )
        if not hasattr(self.scheduler, KEY):  # nobody has loaded vLLM's plugins
            vllm_plugin.attach(self.scheduler, LOG)
        self.worker = IdleWorker()
        self.tokens: dict[str, list[int]] = {}
        self.ends: dict[str, str] = {}
        """How the last frame of each session ended: length is the good end of one."""
        self.frames: dict[str, int] = {}
        self._in_flight: deque[tuple[Any, ModelRunnerOutput]] = deque()

    @property
    def state(self) -> State:
        state: State = getattr(self.scheduler, KEY).state
        return state

    def send(self, name: str, *, max_tokens: int = 1) -> None:
        """The next frame of a session."""
        number = self.frames[name] = self.frames.get(name, 0) + 1
        heard = self.tokens.setdefault(name, [])
        length = PREFIX if number == 1 else 1
        element = MultiModalFieldElem(data=torch.zeros(4), field=MultiModalBatchedField())
        feature = MultiModalFeatureSpec(
            data=MultiModalKwargsItem({"audio_arrays": element}),
            modality="audio",
            identifier=f"{name}.{number}",
            mm_position=PlaceholderRange(offset=0, length=length),
        )
        request = Request(
            request_id=name,
            prompt_token_ids=[1] * length if number == 1 else [heard[-1] if heard else 1],
            sampling_params=SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True),
            pooling_params=None,
            mm_features=[feature],
            resumable=True,
        )
        self.scheduler.add_request(request)

    def step(self) -> None:
        """As vLLM's engine core: up to `ahead` batches are in flight."""
        if self.scheduler.has_requests():
            output = self.scheduler.schedule()
            self._in_flight.append((output, self.worker.run(output)))
            if len(self._in_flight) < self._ahead:
                return
        if self._in_flight:
            outputs = self.scheduler.update_from_output(*self._in_flight.popleft())
            for output in (one for client in outputs.values() for one in client.outputs):
                self.tokens[output.request_id] += output.new_token_ids
                if output.finish_reason is not None:
                    self.ends[output.request_id] = str(output.finish_reason)

    def settle(self) -> None:
        while self.scheduler.has_requests() or self._in_flight:
            self.step()

    def features(self, name: str) -> int:
        return len(self.scheduler.requests[name].mm_features)

    def waits_for_audio(self, name: str) -> bool:
        status = self.scheduler.requests[name].status
        return bool(status == RequestStatus.WAITING_FOR_STREAMING_REQ)

    def abort(self, name: str) -> None:
        self.scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)


class IdleWorker:
    """What a worker knows of its requests; it fails where a real one would."""

    def __init__(self) -> None:
        self.encoded: set[str] = set()
        self.requests: dict[str, SimpleNamespace] = {}

    def run(self, output: Any) -> ModelRunnerOutput:
        for request in output.finished_req_ids:
            self.requests.pop(request, None)
        self.encoded -= set(output.free_encoder_mm_hashes)
        for new in output.scheduled_new_reqs:
            known = self.requests.setdefault(new.req_id, SimpleNamespace(heard={}))
            known.features = new.mm_features
            known.prompt = len(new.prompt_token_ids)
            known.computed = new.num_computed_tokens
        cached = output.scheduled_cached_reqs
        for request, computed in zip(cached.req_ids, cached.num_computed_tokens, strict=True):
            self.requests[request].computed = computed
        for request, indices in output.scheduled_encoder_inputs.items():
            for index in indices:
                feature = self.requests[request].features[index]
                assert feature.data is not None
                self.encoded.add(feature.identifier)
        sampled = [self._compute(*item) for item in output.num_scheduled_tokens.items()]
        names = list(output.num_scheduled_tokens)
        return ModelRunnerOutput(names, {name: i for i, name in enumerate(names)}, sampled)

    def _compute(self, name: str, count: int) -> list[int]:
        request = self.requests[name]
        end = request.computed + count
        for position in range(request.computed, min(end, request.prompt)):
            (feature,) = (
                feature
                for feature in request.features
                if 0 <= position - feature.mm_position.offset < feature.mm_position.length
            )
            assert feature.identifier in self.encoded
            request.heard[position] = feature.identifier
        if end < request.prompt:
            return []
        assert sorted(request.heard) == list(range(request.prompt))
        return [zlib.crc32(" ".join(request.heard.values()).encode()) % 4000]
