"""A drain of many: whose turn is when, and a drain that has no deadline, or gets one later.

What a drain does to one connection is in `test_timers.py`. Every moment is exact in virtual time.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from tests.connection.fakes import Connection, House, connected, house
from tests.engine.scripted import Script, speech, transcript
from voxtral_actors.connection.supervisor import Kind, Outcome
from voxtral_actors.limits import DRAIN_SPREAD_S
from voxtral_actors.protocol import events
from voxtral_actors.protocol.closing import Close

LIVE = Script(step_s=0.08)
STUCK = Script(hang_after=0)
DRAINING = Outcome(Kind.SHUTDOWN, "shutting_down", Close.DRAINING)
SHARES = (0.0, 0.25, 0.5, 1.0)


async def crowd(stack: AsyncExitStack, here: House) -> list[Connection]:
    """A connection for each share, with five seconds of grace."""
    return [
        await stack.enter_async_context(here.connect(drain_share=share, close_grace_s=5))
        for share in SHARES
    ]


async def ends(crowd: list[Connection], since: float) -> list[float]:
    """When each of them ended."""
    ended: list[float] = []
    for connection in crowd:
        assert await connection.ended() == DRAINING
        ended.append(trio.current_time() - since)
    return ended


@pytest.mark.parametrize(
    ("left_s", "spread_s"), [(100.0, DRAIN_SPREAD_S), (8.0, 2.0)], ids=["long drain", "short drain"]
)
async def test_p16_quiet_connections_leave_one_after_the_other(
    left_s: float, spread_s: float
) -> None:
    async with house() as here, AsyncExitStack() as stack:
        everybody = await crowd(stack, here)
        await trio.sleep(1)
        here.drain.start(1 + left_s)
        assert await ends(everybody, since=1) == pytest.approx([spread_s * s for s in SHARES])


async def test_p16_what_still_runs_is_not_finalised_all_at_once() -> None:
    async with house(LIVE) as here, AsyncExitStack() as stack:
        everybody = await crowd(stack, here)
        for connection in everybody:
            connection.client.start("a")
            connection.client.audio(speech(1))
        await trio.sleep(2)
        here.drain.start(2 + 60)
        moments = [55 - DRAIN_SPREAD_S * share for share in SHARES[::-1]]
        assert await ends(everybody[::-1], since=2) == pytest.approx(moments, abs=0.1)

    for connection in everybody:
        assert connection.client.the(events.Done, "a").text == transcript(speech(1))


async def test_p16_until_its_turn_a_connection_goes_on() -> None:
    """An utterance that it may still begin is heard to its end."""
    async with connected(LIVE, drain_share=1.0) as connection:
        client = connection.client
        client.start("a")
        client.audio(speech(1))
        await trio.sleep(2)
        connection.house.drain.start(trio.current_time() + 100)
        client.finalise("a")
        await client.hear(events.Done, "a")
        client.start("b")
        client.audio(speech(1, 1))
        await trio.sleep(DRAIN_SPREAD_S + 1)
        client.finalise("b")
        assert await connection.ended() == DRAINING

    assert client.the(events.Done, "b").text == transcript(speech(1, 1))


async def test_p16_a_drain_without_a_deadline_waits_for_the_last_word() -> None:
    async with connected(LIVE, drain_share=0.5, max_duration_s=0, idle_timeout_s=0) as connection:
        client = connection.client
        client.start("a")
        client.audio(speech(1))
        await trio.sleep(1)
        connection.house.drain.start()
        await trio.sleep(86_400)
        client.start("b")
        await client.hear(events.Error, "b")
        assert client.the(events.Error, "b").reason_code == "draining"
        await connection.ended()

    assert client.the(events.Cancelled, "a").reason == "superseded"


async def test_p16_without_a_deadline_the_quiet_ones_leave_all_the_same() -> None:
    async with house() as here, AsyncExitStack() as stack:
        everybody = await crowd(stack, here)
        here.drain.start()
        assert await ends(everybody, since=0) == [DRAIN_SPREAD_S * share for share in SHARES]


@pytest.mark.parametrize("share", SHARES)
async def test_p16_a_deadline_that_comes_later_counts(share: float) -> None:
    async with connected(STUCK, drain_share=share, close_grace_s=5) as connection:
        connection.client.start("a")
        connection.client.audio(speech(0.5))
        await trio.sleep(1)
        connection.house.drain.start()
        await trio.sleep(29)
        connection.house.drain.start(trio.current_time() + 40)
        assert await connection.ended() == DRAINING
        assert trio.current_time() == pytest.approx(30 + 40 - DRAIN_SPREAD_S * share)

    assert connection.client.the(events.Cancelled, "a").reason == "shutting_down"


async def test_p16_a_deadline_may_come_before_the_turn() -> None:
    async with connected(drain_share=1.0) as connection:
        connection.house.drain.start()
        await trio.sleep(1)
        connection.house.drain.start(trio.current_time() + 4)
        assert await connection.ended() == DRAINING
        assert trio.current_time() == pytest.approx(1 + 1)
