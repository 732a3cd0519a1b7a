"""The line to the engine's processes, without an engine: what is sent, what is read, and who gets
what of it. That it says what vLLM would say is looked at when an engine starts, and in
`test_equality` by what is heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, Self, cast

import msgspec
import numpy as np
import pytest
import zmq

from voxtral_actors.engine import vllm_line, vllm_request
from voxtral_actors.engine.registry import EngineSetupError
from voxtral_actors.engine.vllm_figures import Figures
from voxtral_actors.engine.vllm_line import Line
from voxtral_actors.engine.vllm_request import Encoder, End, frame_maker


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


def core_request(**changed: Any) -> Any:
    """A frame of silence, as vLLM's input processor would make it."""
    import torch
    from vllm.multimodal import inputs
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine import EngineCoreRequest

    samples = torch.zeros(len(vllm_request._SILENCE) // 2, dtype=torch.bfloat16)
    element = inputs.MultiModalFieldElem(data=samples, field=inputs.MultiModalBatchedField())
    feature = inputs.MultiModalFeatureSpec(
        data=inputs.MultiModalKwargsItem({"audio_arrays": element}),
        modality="audio",
        identifier="hash",
        mm_position=inputs.PlaceholderRange(offset=0, length=2),
        mm_hash="hash",
    )
    given = {
        "request_id": "",
        "prompt_token_ids": [1, 2],
        "mm_features": [feature],
        "sampling_params": SamplingParams(temperature=0.0, max_tokens=1),
        "pooling_params": None,
        "arrival_time": 1.5,
        "lora_request": None,
        "cache_salt": None,
        "data_parallel_rank": None,
        "resumable": True,
    }
    return EngineCoreRequest(**given | changed)


def encoder(**changed: Any) -> Encoder:
    from vllm.v1.serial_utils import MsgpackEncoder

    return Encoder(MsgpackEncoder(), core_request(**changed))


def test_every_sample_is_cast_as_torch_casts_it() -> None:
    import torch

    pcm = bytearray(np.arange(-(2**15), 2**15, dtype=np.int16).tobytes())
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        cast = torch.frombuffer(pcm, dtype=torch.int16).to(dtype) / 32768
        frame = frame_maker(dtype)("hash", [1], pcm)
        assert frame.audio == cast.view(torch.uint8).numpy().tobytes()
        assert f"torch.{frame.dtype}" == str(dtype)
        assert frame.samples == 2**16


def test_a_frame_is_what_vllm_would_make_of_it() -> None:
    assert encoder().agrees()


@pytest.mark.parametrize("changed", [{"prompt_token_ids": [1]}, {"mm_features_modality": "video"}])
def test_a_vllm_that_makes_something_else_is_noticed(changed: dict[str, Any]) -> None:
    modality = changed.pop("mm_features_modality", None)
    pattern = core_request(**changed)
    if modality is not None:
        pattern.mm_features[0].modality = modality
    from vllm.v1.serial_utils import MsgpackEncoder

    assert not Encoder(MsgpackEncoder(), pattern).agrees()


def test_frames_and_ends_have_the_name_and_the_copy_that_they_are_given() -> None:
    import torch
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.serial_utils import MsgpackDecoder

    pcm = bytearray(np.arange(-200, 200, dtype=np.int16).tobytes())
    frame = frame_maker(torch.bfloat16)("its hash", [7], pcm)
    decode = MsgpackDecoder(EngineCoreRequest).decode
    for request in (frame, End()):
        request.request_id, request.data_parallel_rank = "one", 3
        request.client_index, request.current_wave = 4, 5
        read = decode(list(encoder().encode(request)))
        assert (read.request_id, read.data_parallel_rank) == ("one", 3)
        assert (read.client_index, read.current_wave) == (4, 5)
        assert read.resumable is (request is frame)
        assert read.sampling_params.max_tokens == 1
        if request is frame:
            (feature,) = read.mm_features
            assert (read.prompt_token_ids, feature.mm_hash) == ([7], "its hash")
            samples = feature.data["audio_arrays"].data
            assert torch.equal(samples, torch.arange(-200, 200).to(torch.bfloat16) / 32768)


class FakeClient:
    """What the line touches of vLLM's client, with real sockets."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        # Both ends in one process: what is sent arrives before `send` returns.
        self.input_socket = self.context.socket(zmq.PUSH)
        self.input_socket.bind("inproc://requests")
        self.engine_in = self.context.socket(zmq.PULL)
        self.engine_in.connect("inproc://requests")
        output_socket = self.context.socket(zmq.PULL)
        output_socket.bind("inproc://answers")
        self.engine_out = self.context.socket(zmq.PUSH)
        self.engine_out.connect("inproc://answers")
        self.encoder = SimpleNamespace(encode=lambda request: (request,))
        self.outputs_queue: asyncio.Queue[Any] = asyncio.Queue()
        self.resources = SimpleNamespace(
            output_socket=output_socket, output_queue_task=None, engine_dead=False
        )
        self.read: list[Any] = []

    async def add_request_async(self, request: Any) -> None:
        await self.input_socket.send_multipart(self.encoder.encode(request), copy=False)

    async def abort_requests_async(self, request_ids: list[str]) -> None:
        if self.resources.engine_dead:
            raise ConnectionError("the engine is dead")
        await self.input_socket.send_multipart([b"abort", *map(str.encode, request_ids)])

    def _ensure_output_queue_task(self) -> None:
        socket, queue = self.resources.output_socket, self.outputs_queue

        async def read() -> None:
            while True:
                for part in await socket.recv_multipart(copy=False):
                    queue.put_nowait(outputs(*msgspec.json.decode(part.buffer)))

        self.resources.output_queue_task = asyncio.create_task(read())

    def close(self) -> None:
        self.context.destroy(linger=0)


def outputs(*names: str, preempted: int = 0) -> Any:
    event = SimpleNamespace(type=SimpleNamespace(name="PREEMPTED"))
    answers = [SimpleNamespace(request_id=name, events=[event] * preempted) for name in names]
    return SimpleNamespace(outputs=answers, engine_index=0, scheduler_stats=None)


class Attached:
    """A line on a fake client; use it with `async with`."""

    def __init__(self) -> None:
        self.client = FakeClient()
        self.figures = Figures()
        llm = SimpleNamespace(
            engine_core=self.client,
            _run_output_handler=lambda: None,
            logger_manager=None,
            errored=False,
        )
        assert vllm_line.missing(llm) == []
        encoder = SimpleNamespace(encode=lambda request: (b"ours", request))
        self.line = Line(llm, cast("Encoder", encoder), self.figures)
        self.heard: list[str] = []

    async def __aenter__(self) -> Self:
        self.line.attach()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.close()
        self.client.resources.output_queue_task.cancel()
        await asyncio.wait({self.client.resources.output_queue_task})

    def listen(self, name: str) -> None:
        self.line.listen(name, lambda answer: self.heard.append(answer.request_id))


def test_answers_reach_who_listens_and_the_others_go_vllms_way() -> None:
    async def test() -> None:
        async with Attached() as there:
            there.listen("one")
            there.listen("two")
            there.client.engine_out.send(b'["one", "theirs", "two"]')
            there.client.engine_out.send(b'["two"]')
            left = await there.client.outputs_queue.get()
            assert [answer.request_id for answer in left.outputs] == ["theirs"]
            while len(there.heard) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert there.heard == ["one", "two", "two"]
            assert there.line.open == 2
            there.line.forget("one")
            there.client.outputs_queue.put_nowait(outputs("one"))
            assert (await there.client.outputs_queue.get()).outputs[0].request_id == "one"
            assert there.heard == ["one", "two", "two"]

    run(test())


def test_messages_that_come_one_by_one_are_all_read() -> None:
    async def test() -> None:
        async with Attached() as there:
            there.listen("one")
            for number in range(1, 20):
                there.client.engine_out.send(b'["one"]')
                for _ in range(number % 4):
                    await asyncio.sleep(0.001)
            while len(there.heard) < 19:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    run(test())


def test_what_is_sent_is_there_in_order_when_send_returns() -> None:
    async def test() -> None:
        async with Attached() as there:
            await there.line.send(b"a frame")
            await there.line.abort("one")
            sent = [there.client.engine_in.recv_multipart(zmq.NOBLOCK) for _ in range(2)]
            assert sent == [[b"ours", b"a frame"], [b"abort", b"one"]]

    run(test())


def test_a_dead_engine_has_nothing_to_abort_and_others_are_told() -> None:
    async def test() -> None:
        async with Attached() as there:
            there.client.resources.engine_dead = True
            await there.line.abort("one")
            error = RuntimeError("the engine is dead")
            there.client.outputs_queue.put_nowait(error)
            assert await there.client.outputs_queue.get() is error

    run(test())


def test_figures_count_a_step_once_and_what_was_preempted() -> None:
    async def test() -> None:
        async with Attached() as there:
            there.listen("one")
            there.client.outputs_queue.put_nowait(outputs("one", preempted=2))
            totals = there.figures.totals()
            assert (totals["vllm_steps_total"], totals["vllm_preemptions_total"]) == (1, 2)
            there.client.outputs_queue.put_nowait(outputs("theirs"))  # its loggers bring it there
            assert there.figures.totals()["vllm_steps_total"] == 1

    run(test())


def test_a_vllm_that_has_begun_to_read_is_refused() -> None:
    async def test() -> None:
        async with Attached() as there:
            with pytest.raises(EngineSetupError, match="not as expected"):
                there.line.attach()

    run(test())


def test_a_vllm_without_what_is_used_is_named() -> None:
    there = FakeClient()
    llm = SimpleNamespace(engine_core=there, errored=False, logger_manager=None)
    del there.resources.engine_dead

    assert vllm_line.missing(llm) == ["engine_core.resources.engine_dead", "_run_output_handler"]
    there.close()
