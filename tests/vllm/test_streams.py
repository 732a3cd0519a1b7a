"""Many streams at once on the one engine, and what is left of those that were cancelled."""

from __future__ import annotations

import random

import attrs
import pytest
import trio

from tests.engine.engine_harness import SPEC, feed_in_pieces, running, say, until
from tests.vllm import sounds
from tests.vllm.vllm_harness import SharedVllm, Visitor
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.engine.port import EngineFullError, Failed, Finished

SLOTS = 16
STORM = 500


async def test_sixteen_streams_at_once_each_hear_what_they_hear_alone(shared: SharedVllm) -> None:
    spoken = list(sounds.inputs().values())[-SLOTS:]
    together: dict[int, str] = {}
    with trio.fail_after(240):
        async with running(lambda: Visitor(shared, SLOTS)) as actor:
            alone = [(await say(actor, pcm)).text for pcm in spoken]
            await until(lambda: actor.statistics().slots_taken == 0)

            async def speak(number: int) -> None:
                together[number] = (await say(actor, spoken[number], seed=number)).text

            async with trio.open_nursery() as nursery:
                for number in range(SLOTS):
                    nursery.start_soon(speak, number)

    assert [together[number] for number in range(SLOTS)] == alone
    assert len(set(alone)) > SLOTS // 2


async def test_p12_cancelled_streams_leave_nothing_in_the_engine(shared: SharedVllm) -> None:
    """500 streams, cancelled at random moments, at most 16 of them at a time."""
    rng = random.Random(12)
    spoken = sounds.pcm(sounds.speech(3.0))
    llm, figures = shared.engine.vllm.llm, shared.engine.figures
    ends: dict[str, int] = {}

    async def cancelled_somewhere(actor: EngineActor, free: trio.Semaphore) -> None:
        async with free:
            while True:
                try:
                    stream = actor.open(SPEC)
                    break
                except EngineFullError:  # the slot of an aborted stream is free a moment later
                    await trio.sleep(0.001)
            feed_in_pieces(
                stream, spoken[: 2 * rng.randrange(len(spoken) // 2)], rng.randrange(10**6)
            )
            if rng.random() < 0.4:
                stream.finish()
            with trio.move_on_after(rng.choice((0, 0.001, 0.05, 0.3, 1.0)) * rng.random()):
                for _ in range(rng.randrange(40)):
                    try:
                        last = await stream.receive()
                    except trio.EndOfChannel:
                        break
                    if isinstance(last, Finished | Failed):
                        ends[type(last).__name__] = ends.get(type(last).__name__, 0) + 1
            stream.abort()

    with trio.fail_after(400):
        async with running(lambda: Visitor(shared, SLOTS)) as actor:
            before = await _alone(actor, shared, spoken)
            frames = figures.frames
            free = trio.Semaphore(SLOTS)
            async with trio.open_nursery() as nursery:
                for _ in range(STORM):
                    nursery.start_soon(cancelled_somewhere, actor, free)
            await until(lambda: actor.statistics().slots_taken == 0)

            assert figures.frames - frames > STORM
            assert llm.get_num_unfinished_requests() == 0
            assert shared.engine._open == {}
            assert sum(shared.engine._load.values()) == 0
            assert "Failed" not in ends
            after = await _alone(actor, shared, spoken)

    text, usage, requests = before
    assert after == before
    assert text
    assert usage > 0
    assert requests == 1
    assert figures.totals()["vllm_preemptions_total"] == 0


async def _alone(actor: EngineActor, shared: SharedVllm, pcm: bytes) -> tuple[str, float, float]:
    """The text of a stream that is alone, the most KV cache and the requests vLLM had meanwhile."""
    usage, requests = 0.0, set[float]()
    text = ""
    scope = trio.CancelScope()

    async def watch() -> None:
        nonlocal usage
        with scope:
            while True:
                await trio.sleep(0.002)
                totals = shared.engine.figures.totals()
                usage = max(usage, totals["vllm_kv_cache_usage"])
                requests.add(totals["vllm_requests_running"] + totals["vllm_requests_waiting"])

    # Figures come with a step: those of other streams' last steps are over when this one has ended.
    await say(actor, pcm)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        text = (await say(actor, pcm)).text
        scope.cancel()
    return text, usage, max(requests)


@pytest.mark.parametrize(("samples", "fits"), [((59 - 32) * 1280, True), (28 * 1280, False)])
async def test_a_stream_that_outgrows_the_model_ends_in_failed(
    shared: SharedVllm, monkeypatch: pytest.MonkeyPatch, samples: int, fits: bool
) -> None:
    """60 tokens, of which 59 are used: 32 for the padding on the left, 80 ms of audio each. What
    does not fit may be padding only."""
    vllm = shared.engine.vllm
    short = attrs.evolve(vllm, capacity=attrs.evolve(vllm.capacity, max_tokens=60))
    monkeypatch.setattr(shared.engine, "_loaded", short)
    with trio.fail_after(60):
        async with running(lambda: Visitor(shared, SLOTS)) as actor:
            heard = await say(actor, sounds.pcm(sounds.speech(4.0))[: 2 * samples])

    assert heard.positions[-1] == (59 - 32) * 1280
    if fits:
        assert isinstance(heard.last, Finished)
        assert heard.last.consumed == samples
    else:
        assert isinstance(heard.last, Failed)
        assert heard.last.reason_code == "max_model_len"
        assert heard.last.retryable
    assert vllm.llm.get_num_unfinished_requests() == 0
