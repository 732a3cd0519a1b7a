"""Many streams at once on the one engine, and what is left of those that were cancelled."""

from __future__ import annotations

import random

import attrs
import pytest
import trio

from tests.engine.engine_harness import feed_in_pieces, running, say, until
from tests.vllm import sounds
from tests.vllm.vllm_harness import SharedVllm, Visitor
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.engine.hosted import HostedStream
from voxtral_actors.engine.port import (
    BackendEvent,
    Deliver,
    EngineFullError,
    EngineStream,
    Failed,
    Finished,
    Released,
    StreamSpec,
)

SLOTS = 16
STORM = 500
SPOKEN = sounds.pcm(sounds.speech(3.0))


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


class Storm(Visitor):
    """Streams that are cancelled at random moments, and what becomes of them."""

    def __init__(self, shared: SharedVllm) -> None:
        super().__init__(shared, SLOTS)
        self.rng = random.Random(12)
        self.finished = 0
        self.failed: list[Failed] = []
        self.told_s: list[float] = []
        """From each abort to the end of the stream, as its reader sees it."""
        self.released_s: list[float] = []
        """From each abort to the moment when vLLM has let go."""
        self._aborted: dict[str, float] = {}

    def open(self, spec: StreamSpec, deliver: Deliver) -> HostedStream:
        def watch(event: BackendEvent) -> None:
            deliver(event)
            if isinstance(event, Released) and spec.label in self._aborted:
                self.released_s.append(trio.current_time() - self._aborted[spec.label])

        return super().open(spec, watch)

    async def stream(self, actor: EngineActor, number: int, free: trio.Semaphore) -> None:
        async with free:
            while True:
                try:
                    stream = actor.open(StreamSpec(f"storm {number}"))
                    break
                except EngineFullError:  # as many again are just leaving
                    await trio.sleep(0.005)
            pcm = SPOKEN[: 2 * self.rng.randrange(len(SPOKEN) // 2)]
            match self.rng.choice(("at once", "soon", "in its text", "in its text")):
                case "at once":
                    feed_in_pieces(stream, pcm)
                case "soon":
                    feed_in_pieces(stream, pcm, self.rng.randrange(10**6))
                    await trio.sleep(self.rng.random() * 0.05)
                case _:
                    feed_in_pieces(stream, SPOKEN, self.rng.randrange(10**6))
                    if finish := self.rng.random() < 0.4:
                        stream.finish()
                    await self._hear(stream, self.rng.randrange(1, 70 if finish else 28))
            aborted = self._aborted[f"storm {number}"] = trio.current_time()
            stream.abort()
            with pytest.raises(trio.EndOfChannel):
                await stream.receive()
            self.told_s.append(trio.current_time() - aborted)

    async def _hear(self, stream: EngineStream, most: int) -> None:
        for _ in range(most):
            event = await stream.receive()
            if isinstance(event, Failed):
                self.failed.append(event)
            self.finished += isinstance(event, Finished)
            if isinstance(event, Failed | Finished):
                return


async def test_p12_cancelled_streams_leave_nothing_in_the_engine(shared: SharedVllm) -> None:
    """500 streams, cancelled at random moments, at most 16 of them at a time."""
    line, figures = shared.engine.vllm.line, shared.engine.figures
    with trio.fail_after(400):
        storm = Storm(shared)
        async with running(lambda: storm) as actor:
            before = await _alone(actor, shared, SPOKEN)
            frames, preempted = figures.frames, figures.totals()["vllm_preemptions_total"]
            free = trio.Semaphore(SLOTS)
            async with trio.open_nursery() as nursery:
                for number in range(STORM):
                    nursery.start_soon(storm.stream, actor, number, free)
            await until(lambda: actor.statistics().slots_taken == 0)

            assert line.open == 0
            assert shared.engine._open == {}
            assert sum(shared.engine._load.values()) == 0
            frames = figures.frames - frames
            after = await _alone(actor, shared, SPOKEN)

    told, released = sorted(storm.told_s), sorted(storm.released_s)
    print(
        f"{STORM} aborts in {frames} frames, {storm.finished} came too late; ms: stream ended"
        f" {_spread(told)}; vLLM let go {_spread(released)}"
    )
    assert frames > 5 * STORM
    assert storm.failed == []
    assert len(told) == STORM
    # The others had finished, and were released, before they were aborted.
    assert STORM - storm.finished <= len(released) <= STORM
    text, usage, requests = before
    assert after == before
    assert text
    assert usage > 0
    assert requests == 1
    assert figures.totals()["vllm_preemptions_total"] == preempted


def _spread(seconds: list[float]) -> str:
    half, most = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.99)]
    return f"p50 {1000 * half:.1f}, p99 {1000 * most:.1f}, max {1000 * seconds[-1]:.1f}"


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
    assert vllm.line.open == 0
