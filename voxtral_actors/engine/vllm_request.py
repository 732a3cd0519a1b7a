"""A frame as a request to vLLM's engine, in bytes.

vLLM would make them of a frame in three steps: an input by its renderer, which puts it through a
processor made for whole files and hashes its samples; a request by its input processor, which looks
at it as at a stranger's; a message by its encoder. All frames of a model are alike, though, but for
their tokens and their samples. So vLLM makes one (`pattern`), and what it has in bytes is copied
for every other one. `Encoder.agrees` makes the same frame by copying and compares.

The samples are cast to the type of the model, as vLLM's own server casts them. With more exact ones
a few tokens come out otherwise; which of the two reads better could only be told by the real model
on much speech, and what its makers measured is what is served here. There are 65,536 samples, so
the cast is a look into a table: in a process that does something else between two frames, torch
takes ten times as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs

_OWN = (
    "request_id",
    "prompt_token_ids",
    "mm_features",
    "arrival_time",
    "data_parallel_rank",
    "client_index",
    "current_wave",
)
"""Fields that a frame has of its own."""


@attrs.define(kw_only=True)
class Request:
    """What the session and vLLM's client set in a request that they send."""

    request_id: str = ""
    data_parallel_rank: int | None = None
    client_index: int = 0
    current_wave: int = 0
    pooling_params: None = None


@attrs.define
class Frame(Request):
    """The audio of one step, and the begin of a request if it is the first one."""

    tokens: list[int]
    hash: str
    """Nothing else has this one."""
    dtype: str
    samples: int
    audio: bytes = attrs.field(repr=False)


class End(Request):
    """The end of a request whose frames are all heard."""


MakeFrame: TypeAlias = Callable[[str, list[int], bytearray], Frame]
"""Of a hash, the tokens, and PCM16."""


def frame_maker(dtype: Any) -> MakeFrame:
    """For a model of this torch type."""
    import numpy as np
    import torch

    every = torch.from_numpy(np.arange(65_536, dtype=np.uint16).view(np.int16))
    cast = every.to(dtype).div_(32_768)
    table = cast.view(getattr(torch, f"int{8 * cast.itemsize}")).numpy()
    name = str(dtype).removeprefix("torch.")

    def make(hash_: str, tokens: list[int], pcm: bytearray) -> Frame:
        samples = np.frombuffer(pcm, dtype=np.uint16)
        return Frame(tokens, hash_, name, len(samples), table.take(samples).tobytes())

    return make


_TOKENS, _HASH, _SILENCE = [1, 2], "hash", bytearray(1024)


def pattern(llm: Any, params: Any) -> Any:
    """A frame of silence as an `EngineCoreRequest`, made by vLLM's input processor."""
    import torch
    from vllm.inputs.engine import mm_input
    from vllm.multimodal.inputs import (
        MultiModalBatchedField,
        MultiModalFieldElem,
        MultiModalKwargsItem,
        MultiModalKwargsItems,
        PlaceholderRange,
    )

    samples = torch.frombuffer(_SILENCE, dtype=torch.int16).to(llm.model_config.dtype)
    element = MultiModalFieldElem(data=samples, field=MultiModalBatchedField())
    item = MultiModalKwargsItem({"audio_arrays": element})
    return llm.input_processor.process_inputs(
        request_id="",
        prompt=mm_input(
            prompt_token_ids=_TOKENS,
            mm_kwargs=MultiModalKwargsItems({"audio": [item]}),
            mm_hashes={"audio": [_HASH]},
            mm_placeholders={"audio": [PlaceholderRange(offset=0, length=len(_TOKENS))]},
        ),
        params=params,
        supported_tasks=("generate",),
        resumable=True,
    )


class Encoder:
    """In place of vLLM's encoder, which encodes all that is not ours."""

    def __init__(self, theirs: Any, pattern: Any) -> None:
        import msgspec

        self._theirs = theirs
        self._pattern = pattern
        self._encode = msgspec.msgpack.Encoder().encode
        fields = msgspec.msgpack.decode(theirs.encode(pattern)[0])
        names = pattern.__struct_fields__
        (feature,) = fields[names.index("mm_features")]
        # What no frame has of its own is encoded once and for all.
        self._field = msgspec.Raw(self._encode(feature["data"]["audio_arrays"]["field"]))
        self._rest: list[Any] = [msgspec.Raw(self._encode(field)) for field in fields]
        self._places = [names.index(name) for name in _OWN]

    def agrees(self) -> bool:
        """Whether our message of a frame says what vLLM's says."""
        import torch

        dtype = str(self._pattern.mm_features[0].data["audio_arrays"].data.dtype)
        make = frame_maker(getattr(torch, dtype.removeprefix("torch.")))
        ours = self._of_frame(make(_HASH, _TOKENS, _SILENCE), self._pattern.arrival_time)
        return _read(ours) == _read(self._theirs.encode(self._pattern))

    def encode(self, request: Any) -> Sequence[Any]:
        """A message, in parts."""
        if isinstance(request, Frame):
            # The engine orders by it and does nothing else with it, so it need not be the date.
            return self._of_frame(request, time.monotonic())
        if isinstance(request, End):
            return self._of_end(request)
        parts: Sequence[Any] = self._theirs.encode(request)
        return parts

    def _of_frame(self, frame: Frame, now: float) -> Sequence[bytes]:
        samples = {"data": (frame.dtype, (frame.samples,), 1), "field": self._field}
        feature = {
            "data": {"audio_arrays": samples},
            "modality": "audio",
            "identifier": frame.hash,
            "mm_position": {"offset": 0, "length": len(frame.tokens), "is_embed": None},
            "mm_hash": frame.hash,
        }
        own = (
            frame.request_id,
            frame.tokens,
            (feature,),
            now,
            frame.data_parallel_rank,
            frame.client_index,
            frame.current_wave,
        )
        fields = self._rest.copy()
        for place, value in zip(self._places, own, strict=True):
            fields[place] = value
        return self._encode(fields), frame.audio

    def _of_end(self, end: End) -> Sequence[Any]:
        from msgspec.structs import replace

        request = replace(
            self._pattern,
            request_id=end.request_id,
            prompt_token_ids=[0],
            mm_features=None,
            data_parallel_rank=end.data_parallel_rank,
            client_index=end.client_index,
            current_wave=end.current_wave,
            resumable=False,
        )
        parts: Sequence[Any] = self._theirs.encode(request)
        return parts


def _read(parts: Sequence[Any]) -> list[Any]:
    import msgspec

    said, *audio = parts
    return [msgspec.msgpack.decode(said), *map(bytes, audio)]
