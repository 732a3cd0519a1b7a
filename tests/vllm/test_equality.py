"""The same tokens and the same text as vLLM's own realtime server, on the same engine."""

from __future__ import annotations

import pytest

from tests.vllm import sounds, vllm_reference
from tests.vllm.vllm_harness import SharedVllm
from voxtral_actors.engine import vllm_request
from voxtral_actors.engine.hosted import AudioSource
from voxtral_actors.engine.port import EngineEvent, Finished, Progress, StreamSpec, Text
from voxtral_actors.engine.vllm_frames import FrameCutter
from voxtral_actors.engine.vllm_session import Session

INPUTS = sounds.inputs()
CHUNKS = (640, 2560, 10_002, 10**7)
"""20 ms, 80 ms, an odd 313 ms, all at once."""


class Ours:
    """One stream of our engine, with its tokens."""

    def __init__(self, shared: SharedVllm, monkeypatch: pytest.MonkeyPatch) -> None:
        self._engine = shared.engine
        self.tokens: dict[str, list[int]] = {}
        step = Session.step

        async def recorded(session: Session, frame: object) -> int:
            token = await step(session, frame)
            self.tokens.setdefault(session._request_id, []).append(token)
            return token

        monkeypatch.setattr(Session, "step", recorded)

    async def hear(self, pcm: bytes, chunk_bytes: int) -> tuple[list[int], list[EngineEvent]]:
        audio, events = AudioSource(), list[EngineEvent]()
        for start in range(0, len(pcm), chunk_bytes):
            audio.put(pcm[start : start + chunk_bytes])
        audio.finish()
        await self._engine.transcribe(StreamSpec("test"), audio, events.append)
        return self.tokens.pop(f"stream-{self._engine._streams}"), events


@pytest.fixture
def ours(shared: SharedVllm, monkeypatch: pytest.MonkeyPatch) -> Ours:
    return Ours(shared, monkeypatch)


def test_token_ids_and_text_are_those_of_vllms_own_server(shared: SharedVllm, ours: Ours) -> None:
    async def compare() -> tuple[dict[str, str], set[int]]:
        different, seen = {}, set[int]()
        for number, (name, pcm) in enumerate(INPUTS.items()):
            chunk = CHUNKS[number % len(CHUNKS)]
            theirs = await vllm_reference.transcribe(shared.engine.vllm.llm, pcm, chunk)
            tokens, events = await ours.hear(pcm, CHUNKS[(number + 1) % len(CHUNKS)])
            text = "".join(event.text for event in events if isinstance(event, Text))
            if (tokens, text) != (theirs.tokens, theirs.text):
                different[name] = f"{tokens}\n{theirs.tokens}\n{text!r}\n{theirs.text!r}"
            seen |= set(tokens)
        return different, seen

    different, seen = shared.call(compare, timeout_s=300)

    assert different == {}
    # Else the model answers the same to everything, and equality says nothing.
    assert len(seen) >= 20


def test_a_delta_only_when_there_is_text(shared: SharedVllm, ours: Ours) -> None:
    pcm = INPUTS["speech-6.11s"]

    async def compare() -> tuple[list[EngineEvent], int]:
        theirs = await vllm_reference.transcribe(shared.engine.vllm.llm, pcm, 2560)
        return (await ours.hear(pcm, 2560))[1], theirs.deltas

    events, their_deltas = shared.call(compare)

    texts = [event for event in events if isinstance(event, Text)]
    assert all(event.text for event in texts)
    assert len(texts) < their_deltas == len(events) - 1


@pytest.mark.parametrize("name", ["silence-0.9s", "speech-2.7s"])
def test_positions_count_the_clients_samples_and_no_padding(
    shared: SharedVllm, ours: Ours, name: str
) -> None:
    pcm = INPUTS[name]
    _, events = shared.call(lambda: ours.hear(pcm, 2560))

    *steps, last = events
    positions = [event.consumed for event in steps if isinstance(event, Text | Progress)]
    assert positions == sorted(positions)
    assert len(positions) == len(steps)
    assert positions[-1] == len(pcm) // 2
    layout = shared.engine.vllm.layout
    assert isinstance(last, Finished)
    assert last == Finished(len(pcm) // 2, len(layout.prefix) + len(steps) - 1, len(steps))


def test_exacter_audio_makes_other_tokens(shared: SharedVllm, ours: Ours) -> None:
    """Why the samples are cast to the model's type: else the tokens are not those of vLLM's server.

    How many differ is printed. It says nothing about words, for the weights here are random.
    """
    import torch

    make = vllm_request.frame_maker(torch.float32)
    vllm = shared.engine.vllm

    async def exactly(name: str) -> list[int]:
        session = Session(vllm.line, f"exact-{name}", None)
        cutter = FrameCutter(vllm.layout)
        cutter.feed(INPUTS[name])
        cutter.finish()
        heard: list[int] = []
        for number, frame in enumerate(cutter.frames()):
            tokens = heard[-1:] or list(vllm.layout.prefix)
            heard.append(await session.step(make(f"{name}.{number}", tokens, frame.pcm)))
        await session.finish()
        return heard

    async def compare() -> list[tuple[int, int]]:
        pairs: list[tuple[int, int]] = []
        for name in INPUTS:
            if name.endswith("6.11s"):
                exact = await exactly(name)
                pairs += zip(exact, (await ours.hear(INPUTS[name], 2560))[0], strict=True)
        return pairs

    pairs = shared.call(compare)

    differing = sum(exact != shipped for exact, shipped in pairs)
    print(f"float32 audio: {differing} of {len(pairs)} tokens differ")
    assert 0 < differing < len(pairs)
