"""The plugin in vLLM with the tiny model: sessions hear the same with it and without."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vllm.vllm_harness import SharedVllm, settings
from voxtral_actors.engine import vllm_library, vllm_plugin, vllm_request
from voxtral_actors.engine.vllm_frames import Frame, FrameCutter
from voxtral_actors.engine.vllm_plugin import State
from voxtral_actors.engine.vllm_realtime import VllmEngine
from voxtral_actors.engine.vllm_session import Session, SessionLostError

LONG_S = 70.0
SHORT_S = 8.0


def audio(seconds: float, seed: int) -> bytes:
    """Noise under a tone that wanders: no two frames are alike."""
    random = np.random.default_rng(seed)
    time = np.arange(round(16_000 * seconds)) / 16_000
    tone = np.sin(2 * np.pi * (200 + 40 * seed + 60 * np.sin(time)) * time)
    samples = 8000 * tone + random.normal(0, 2000, len(time))
    return np.clip(samples, -32768, 32767).astype("<i2").tobytes()


async def heard(engine: VllmEngine, name: str, pcm: bytes, chunk_ms: int) -> list[int]:
    """The token ids of one session."""
    loaded = engine.vllm
    session = Session(loaded.line, name, 0)
    cutter = FrameCutter(loaded.layout)
    tokens: list[int] = []
    try:
        for frame in _cut(cutter, pcm, 32 * chunk_ms):
            given = tokens[-1:] or list(loaded.layout.prefix)
            item = loaded.make_frame(f"{name}.{len(tokens)}", given, frame.pcm)
            tokens.append(await session.step(item))
        await session.finish()
    finally:
        await session.close()
    return tokens


def _cut(cutter: FrameCutter, pcm: bytes, chunk: int) -> Iterator[Frame]:
    for at in range(0, len(pcm), chunk):
        cutter.feed(pcm[at : at + chunk])
        yield from cutter.frames()
    cutter.finish()
    yield from cutter.frames()


async def visit(engine: VllmEngine, *, on: bool) -> dict[str, Any]:
    """What sessions hear in an engine."""
    said: dict[str, Any] = {
        "before": await vllm_plugin.ask(engine.vllm.llm),
        "long": await heard(engine, "long", audio(LONG_S, 0), 80),
        "together": await asyncio.gather(
            *(
                heard(engine, f"together-{i}", audio(SHORT_S, i), (20, 80, 250, 1000)[i])
                for i in range(4)
            )
        ),
        "chunks": [await heard(engine, f"chunks-{ms}", audio(SHORT_S, 9), ms) for ms in (10, 3000)],
    }
    if on:
        said["lost"] = await lose_one(engine)
    said["after"] = await vllm_plugin.ask(engine.vllm.llm)
    said["next"] = await heard(engine, "next", audio(SHORT_S, 9), 80)
    return said


async def visit_without(model: Path) -> dict[str, Any]:
    """The same in an engine of its own, where the plugin is switched off."""
    engine = VllmEngine(settings(model, VOXTRAL_FLAT_SESSIONS="false"))
    try:
        await engine.start()
        return await visit(engine, on=False)
    finally:
        await engine.stop()  # noqa: ASYNC102 - asyncio, and bounded in there


def talkative(loaded: vllm_library.Loaded, tokens: list[int], pcm: bytearray) -> Any:
    """A frame as vLLM makes its requests, one that stays in a step: it has a thousand tokens to
    say."""
    import torch
    from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange

    request = vllm_request.pattern(loaded.llm, vllm_library._sampling_params())
    (silence,) = request.mm_features
    item = silence.data
    samples = torch.frombuffer(pcm, dtype=torch.int16).to(loaded.llm.model_config.dtype) / 32768
    item["audio_arrays"] = dataclasses.replace(item["audio_arrays"], data=samples)
    position = PlaceholderRange(offset=0, length=len(tokens))
    spec = MultiModalFeatureSpec(item, "audio", "lost.last", position, mm_hash="lost.last")
    request.prompt_token_ids, request.mm_features = tokens, [spec]
    request.sampling_params.max_tokens = 1000
    return request


async def lose_one(engine: VllmEngine) -> str:
    """Make vLLM preempt a session that has dropped features; what the session says of it."""
    loaded = engine.vllm
    session = Session(loaded.line, "lost", 0)
    cutter = FrameCutter(loaded.layout)
    cutter.feed(audio(8.0, 5))
    frames = list(cutter.frames())
    given = list(loaded.layout.prefix)
    try:
        for number, frame in enumerate(frames[:-1]):
            given = [await session.step(loaded.make_frame(f"lost.{number}", given, frame.pcm))]
        await session.step(talkative(loaded, given, frames[-1].pcm))
        await loaded.llm.reset_prefix_cache(reset_running_requests=True)
        async with asyncio.timeout(20):
            while session._lost is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return f"{type(session._lost).__name__}: {session._lost}"
    except TimeoutError:
        return "nothing"
    finally:
        await session.close()


@pytest.fixture(scope="session")
def visits(session_vllm: SharedVllm, model: Path) -> dict[bool, dict[str, Any]]:
    """With the plugin, which the shared engine has, and without it."""
    shared = session_vllm.start()
    with_it = shared.call(lambda: visit(shared.engine, on=True), timeout_s=300)
    shared.stop()
    return {True: with_it, False: asyncio.run(visit_without(model))}


def test_the_engine_process_says_whether_it_is_on(visits: dict[bool, dict[str, Any]]) -> None:
    assert [state.on for state in visits[True]["before"]] == [True]
    assert visits[False]["before"] == [State("it is switched off")]


def test_a_long_session_gives_the_same_tokens(visits: dict[bool, dict[str, Any]]) -> None:
    trimmed, plain = visits[True], visits[False]

    assert len(trimmed["long"]) > LONG_S / 0.08
    assert len(set(trimmed["long"])) > 20  # the tokens say something about the audio
    assert trimmed["long"] == plain["long"]
    assert trimmed["after"][0].dropped - trimmed["before"][0].dropped > LONG_S / 0.08


def test_so_do_sessions_at_the_same_time(visits: dict[bool, dict[str, Any]]) -> None:
    assert visits[True]["together"] == visits[False]["together"]
    assert len({tuple(tokens) for tokens in visits[True]["together"]}) == 4


def test_so_do_chunks_of_any_length(visits: dict[bool, dict[str, Any]]) -> None:
    for visit in visits.values():
        assert visit["chunks"][0] == visit["chunks"][1] == visit["next"]
    assert visits[True]["chunks"] == visits[False]["chunks"]


def test_so_does_one_of_the_model(visits: dict[bool, dict[str, Any]]) -> None:
    assert visits[True]["lost"].startswith(SessionLostError.__name__)
    assert visits[True]["lost"].endswith("error")
    assert visits[True]["after"][0].lost - visits[True]["before"][0].lost == 1
