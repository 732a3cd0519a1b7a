"""The engine actor over the scripted engine, in virtual time: lives, slots, last events."""

from __future__ import annotations

from itertools import pairwise

import pytest
import structlog
import trio
import trio.testing
from trio.testing import MockClock

from tests.engine.engine_harness import SPEC, feed_in_pieces, hear, running, say
from tests.engine.scripted import (
    FRAME,
    FRAME_BYTES,
    HEALTHY,
    Script,
    Scripted,
    ScriptedError,
    speech,
    transcript,
)
from voxtral_actors import limits
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.engine.port import (
    Backend,
    EngineFullError,
    EngineInfo,
    EngineUnavailableError,
    Failed,
    Finished,
    Progress,
    Text,
)

FIRST, LARGEST = limits.ENGINE_RESTART_FIRST_S, limits.ENGINE_RESTART_MAX_S


async def starts(scripted: Scripted, wanted: int) -> list[float]:
    """When the first lives of an engine began."""
    times: list[float] = []

    def make() -> Backend:
        times.append(trio.current_time())
        if len(times) == wanted:
            scope.cancel()
        return scripted.backend()

    with trio.fail_after(3600), trio.CancelScope() as scope:
        await EngineActor(make).run()
    return times


def gaps(times: list[float]) -> list[float]:
    return [round(later - earlier, 6) for earlier, later in pairwise(times)]


# --- Lives -----------------------------------------------------------------------------------


async def test_backoff_doubles_up_to_its_largest_while_starts_fail(
    autojump_clock: MockClock,
) -> None:
    times = await starts(Scripted(Script(fail_start=100)), 10)

    assert gaps(times)[:7] == [FIRST * 2**n for n in range(6)] + [LARGEST]
    assert gaps(times)[6:] == [LARGEST] * 3


async def test_backoff_starts_over_after_a_stable_life(autojump_clock: MockClock) -> None:
    stable = limits.ENGINE_STABLE_S
    times = await starts(Scripted(Script(die_at_s=stable)), 4)

    assert gaps(times) == [stable + FIRST] * 3


async def test_backoff_goes_on_after_short_lives(autojump_clock: MockClock) -> None:
    times = await starts(Scripted(Script(die_at_s=1)), 4)

    assert gaps(times) == [1 + FIRST, 1 + 2 * FIRST, 1 + 4 * FIRST]


async def test_a_long_start_is_no_stable_life(autojump_clock: MockClock) -> None:
    """Loading a large model takes a minute or more; that it never worked must not be forgotten."""
    loading = limits.ENGINE_STABLE_S + 10
    times = await starts(Scripted(Script(start_s=loading, die_at_s=1)), 4)

    assert gaps(times) == [loading + 1 + FIRST * 2**n for n in range(3)]


async def test_the_log_tells_the_pause_that_follows(autojump_clock: MockClock) -> None:
    with structlog.testing.capture_logs() as logs:
        await starts(Scripted(Script(die_at_s=limits.ENGINE_STABLE_S)), 3)

    pauses = [entry["retry_in_s"] for entry in logs if entry["event"] == "engine.died"]
    assert pauses == [FIRST, FIRST]


async def test_waiters_wait_through_failed_starts(autojump_clock: MockClock) -> None:
    scripted = Scripted(Script(fail_start=3))
    actor = EngineActor(scripted.backend)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, trio.open_nursery() as waiters:
            for _ in range(3):
                waiters.start_soon(actor.wait_ready)
            nursery.start_soon(actor.run)
            assert (await actor.wait_ready()).name == "scripted"
            assert scripted.starts == 4
            assert actor.statistics().deaths == 3
            assert actor.statistics().starts == 1
            nursery.cancel_scope.cancel()


async def test_a_backend_that_cannot_even_be_made_is_a_failed_start(
    autojump_clock: MockClock,
) -> None:
    scripted = Scripted()
    attempts = 0

    def make() -> Backend:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ScriptedError("cannot be made")
        return scripted.backend()

    with trio.fail_after(60):
        async with running(make) as actor:
            assert actor.statistics().deaths == 1


async def test_cancelled_while_starting(autojump_clock: MockClock) -> None:
    actor = EngineActor(Scripted(Script(start_s=100)).backend)
    with trio.fail_after(60), trio.move_on_after(10) as scope:
        await actor.run()

    assert scope.cancelled_caught
    assert not actor.statistics().ready
    assert actor.statistics().deaths == 0


async def test_open_is_refused_until_the_engine_is_ready_and_while_it_restarts(
    autojump_clock: MockClock,
) -> None:
    scripted = Scripted(Script(start_s=5))
    actor = EngineActor(scripted.backend)
    with pytest.raises(EngineUnavailableError):
        actor.open(SPEC)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor.run)
            await trio.sleep(4)
            with pytest.raises(EngineUnavailableError):
                actor.open(SPEC)
            await actor.wait_ready()
            actor.open(SPEC)
            scripted.kill()
            await trio.sleep(1)
            assert actor.info is None
            with pytest.raises(EngineUnavailableError):
                actor.open(SPEC)
            await actor.wait_ready()
            actor.open(SPEC)
            nursery.cancel_scope.cancel()


# --- Giving up an engine that holds on -------------------------------------------------------


@pytest.mark.parametrize("ending", ["abort", "finish", "fail"])
async def test_an_engine_that_keeps_a_slot_is_given_up(
    ending: str, autojump_clock: MockClock
) -> None:
    stuck = Script(never_release=True, fail_after=0 if ending == "fail" else float("inf"))
    scripted = Scripted(HEALTHY, streams=[stuck])
    with trio.fail_after(60):
        async with running(scripted.backend) as actor:
            stream = actor.open(SPEC)
            bystander = actor.open(SPEC)
            stream.abort() if ending == "abort" else stream.finish()
            await hear(stream)
            ended = trio.current_time()
            assert actor.statistics().slots_taken == 2

            last = (await hear(bystander)).last
            assert trio.current_time() - ended == limits.ENGINE_RELEASE_S
            assert isinstance(last, Failed)
            assert last.reason_code == "engine_lost"
            assert actor.statistics().slots_taken == 0
            assert not actor.statistics().ready

            await actor.wait_ready()
            assert scripted.starts == 2


async def test_each_stream_has_its_own_time_to_be_released(autojump_clock: MockClock) -> None:
    scripted = Scripted(Script(release_after_s=limits.ENGINE_RELEASE_S - 1))
    with trio.fail_after(600):
        async with running(scripted.backend) as actor:
            for _ in range(3):
                actor.open(SPEC).abort()
                await trio.sleep(limits.ENGINE_RELEASE_S / 2)
            await trio.sleep(10 * limits.ENGINE_RELEASE_S)
            assert actor.statistics().slots_taken == 0
            assert actor.statistics().deaths == 0


async def test_a_process_that_stood_still_gives_the_engine_a_moment_to_let_go(
    autojump_clock: MockClock,
) -> None:
    """The release was due long ago, but so was everything else."""
    scripted = Scripted(Script(release_after_s=60 + limits.STANDSTILL_S / 2))
    with trio.fail_after(600):
        async with running(scripted.backend) as actor:
            actor.open(SPEC).abort()
            await trio.sleep(1)
            autojump_clock.jump(59)
            await trio.sleep(10)
            assert (actor.statistics().slots_taken, actor.statistics().deaths) == (0, 0)


async def test_not_ready_at_once_when_given_up_though_stopping_takes_time(
    autojump_clock: MockClock,
) -> None:
    """What opens meanwhile would land in an engine that is on its way down."""

    class SlowToStop:
        def __init__(self) -> None:
            self._inner = scripted.backend()
            self.open = self._inner.open

        async def run(self, *, task_status: trio.TaskStatus[EngineInfo]) -> None:
            try:
                await self._inner.run(task_status=task_status)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(4)

    scripted = Scripted(HEALTHY, streams=[Script(never_release=True)])
    with trio.fail_after(60):
        async with running(SlowToStop) as actor:
            actor.open(SPEC).abort()
            bystander = actor.open(SPEC)
            await hear(bystander)
            assert trio.current_time() == limits.ENGINE_RELEASE_S
            assert not actor.statistics().ready


# --- Streams ---------------------------------------------------------------------------------


async def test_what_a_stream_says_after_its_end_is_dropped_and_counted(
    autojump_clock: MockClock,
) -> None:
    scripted = Scripted(streams=[Script(garbage=True), Script(late=True, release_after_s=1)])
    pcm = speech(1)
    with trio.fail_after(60):
        async with running(scripted.backend) as actor:
            assert (await say(actor, pcm)).text == transcript(pcm)
            await trio.testing.wait_all_tasks_blocked()
            # Four after the last event, the same four after `Released`, and a second `Released`.
            assert actor.statistics().events_dropped == 9

            late = actor.open(SPEC)
            late.abort()
            assert (await hear(late)).last is None
            await trio.testing.wait_all_tasks_blocked()
            assert actor.statistics().events_dropped == 13


async def test_unread_texts_are_merged_into_one_event(autojump_clock: MockClock) -> None:
    pcm = speech(0.08 * 10_000)
    with trio.fail_after(60):
        async with running(Scripted().backend) as actor:
            stream = actor.open(SPEC)
            stream.feed(pcm)
            stream.finish()
            await trio.sleep(1)

            merged = await stream.receive()
            assert merged == Text(transcript(pcm), len(pcm) // 2)
            assert isinstance(merged, Text)
            assert "".join(text for text, _ in merged.pieces) == merged.text
            assert [at % FRAME for _, at in merged.pieces] == [0] * len(merged.pieces)
            assert await stream.receive() == Finished(len(pcm) // 2)


async def test_unread_text_keeps_its_place_when_progress_follows(autojump_clock: MockClock) -> None:
    pcm = speech(0.08 * 4)
    with trio.fail_after(60):
        async with running(Scripted().backend) as actor:
            stream = actor.open(SPEC)
            stream.feed(pcm + bytes(len(pcm)))
            await trio.sleep(1)

            heard = await stream.receive()
            assert isinstance(heard, Text)
            assert heard.text == transcript(pcm)
            assert heard.consumed <= 4 * FRAME
            assert await stream.receive() == Progress(8 * FRAME)


async def test_unread_progress_takes_no_memory(autojump_clock: MockClock) -> None:
    with trio.fail_after(60):
        async with running(Scripted().backend) as actor:
            stream = actor.open(SPEC)
            stream.feed(bytes(FRAME_BYTES * 1000))
            await trio.testing.wait_all_tasks_blocked()
            assert await stream.receive() == Progress(FRAME * 1000)

            stream.feed(bytes(FRAME_BYTES))
            stream.finish()
            await trio.testing.wait_all_tasks_blocked()
            heard = await hear(stream)
            assert heard.texts == []
            assert heard.last == Finished(FRAME * 1001)


async def test_receive_can_be_cancelled_without_losing_anything(autojump_clock: MockClock) -> None:
    pcm = speech(1)
    with trio.fail_after(60):
        async with running(Scripted(Script(step_s=0.08)).backend) as actor:
            stream = actor.open(SPEC)
            with trio.move_on_after(1):
                await stream.receive()
            stream.feed(pcm)
            stream.finish()
            assert (await hear(stream)).text == transcript(pcm)


async def test_a_backend_that_cannot_open_takes_no_slot(autojump_clock: MockClock) -> None:
    scripted = Scripted(Script(slots=1), streams=[Script(open_raises=True)])
    with trio.fail_after(60):
        async with running(scripted.backend) as actor:
            with pytest.raises(EngineUnavailableError):
                actor.open(SPEC)
            assert actor.statistics().slots_taken == 0
            assert actor.statistics().streams_opened == 0

            actor.open(SPEC)
            with pytest.raises(EngineFullError):
                actor.open(SPEC)
            assert actor.statistics().streams_opened == 1
            assert actor.statistics().streams_refused == 1


async def test_p12_abort_reaches_the_engine_at_once_and_the_next_text_is_clean(
    autojump_clock: MockClock,
) -> None:
    slow = Script(slots=1, step_s=0.08, late=True)
    scripted = Scripted(slow)
    before, after = speech(5, 1), speech(2, 2)
    with trio.fail_after(60):
        async with running(scripted.backend) as actor:
            for _ in range(5):
                stream = actor.open(SPEC)
                feed_in_pieces(stream, before)
                await trio.sleep(1)
                stream.abort()
                assert scripted.streams[-1].aborted
                aborted = trio.current_time()
                with pytest.raises(trio.EndOfChannel):
                    await stream.receive()
                await trio.testing.wait_all_tasks_blocked()
                assert actor.statistics().slots_taken == 0
                assert trio.current_time() == aborted

                heard = await say(actor, after)
                assert heard.text == transcript(after)
                assert heard.last == Finished(len(after) // 2)
                await trio.testing.wait_all_tasks_blocked()
