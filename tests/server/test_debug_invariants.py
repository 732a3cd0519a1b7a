"""The invariants: quiet on a server that works, and each of them speaks when a leak is planted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from tests.engine.scripted import Script, speech
from tests.server.debug_rig import WITH_KEY, rig
from voxtral_actors import limits
from voxtral_actors.connection.bridge import Bridge
from voxtral_actors.connection.limiter import Limiter
from voxtral_actors.connection.writer import Writer
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.engine.port import StreamSpec
from voxtral_actors.protocol.utterance import Utterance
from voxtral_actors.server.invariants import stuck

SLOW = Script(slots=1000, step_s=0.08)


@pytest.fixture(autouse=True)
def log() -> Iterator[list[Any]]:
    """What was logged."""
    with capture_logs() as lines:
        yield lines


async def stand(*_: object) -> None:
    """An actor that does nothing, in place of one that works."""
    await trio.sleep_forever()


def violations(log: list[Any]) -> list[Any]:
    return [line for line in log if line["event"] == "invariant.violated"]


async def test_nothing_is_violated_by_a_busy_server(
    autojump_clock: MockClock, log: list[Any]
) -> None:
    """At every look while connections come, speak over each other, barge in, fall silent, leave."""
    async with rig(SLOW) as here:

        async def talk(number: int) -> None:
            client, _ = await here.connect()
            for name in map(str, range(6)):
                client.utter(name, speech(0.4, seed=number))
                client.start(name + "b")  # while the one before is finalised
                client.audio(speech(0.2))
                await trio.sleep(number / 10)
                if number % 3 == 0:
                    client.stop_reading()
                if number % 4 == 0:
                    client.cancel(name + "b")
            client.leave()

        async with trio.open_nursery() as talking:
            for number in range(12):
                talking.start_soon(talk, number)
            for _ in range(100):
                await trio.sleep(0.05)
                await here.invariants.look()
                assert not violations(log)
        assert await here.violated() == {}


async def test_a_stream_that_no_connection_holds_is_leaked(autojump_clock: MockClock) -> None:
    async with rig(SLOW) as here:
        client, _ = await here.connect()
        client.start("held")
        here.service.engine.open(StreamSpec("planted"))
        assert await here.violated() == {"leaked_streams": 1}


async def test_a_stream_that_the_engine_forgot_is_unknown(autojump_clock: MockClock) -> None:
    async with rig(SLOW) as here:
        client, _ = await here.connect()
        client.start("forgotten")
        assert await here.violated() == {}
        here.service.engine._streams.clear()
        assert await here.violated() == {"unknown_streams": 1}


async def test_a_slot_that_is_not_given_back_is_overdue(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine actor would give up such an engine: here that watchdog is broken."""
    monkeypatch.setattr(EngineActor, "_watch_releases", stand)
    async with rig(Script(never_release=True)) as here:
        client, _ = await here.connect()
        client.start("a")
        client.cancel("a")
        await here.violated()
        await trio.sleep(limits.ENGINE_RELEASE_S)
        assert await here.violated() == {}
        await trio.sleep(limits.INVARIANT_SLACK_S + 1)
        assert await here.violated() == {"overdue_releases": 1}


async def test_a_token_without_a_connection_is_stray(
    autojump_clock: MockClock, log: list[Any]
) -> None:
    async with rig() as here:
        await here.connect()
        with here.service.admission.admit(WITH_KEY):
            assert await here.violated() == {"stray_tokens": 1}
        assert await here.violated() == {}


async def test_a_connection_that_outlives_its_socket_is_undead(
    autojump_clock: MockClock, log: list[Any]
) -> None:
    async with rig() as here:
        _, seat = await here.connect()
        await here.connect()
        seat.wire.abort()
        assert await here.violated() == {}
        await trio.sleep(limits.LAST_WORDS_S)
        assert await here.violated() == {}
        await trio.sleep(limits.INVARIANT_SLACK_S + 1)
        assert await here.violated() == {"undead_connections": 1}
        assert violations(log)[0]["connections"] == ["sess-0"]


async def test_tasks_beyond_what_a_connection_can_have_are_in_excess(
    autojump_clock: MockClock,
) -> None:
    async with rig() as here:
        client, seat = await here.connect()
        client.start("a")
        assert await here.violated() == {}
        assert seat.tree is not None
        assert seat.tree.nursery is not None
        for _ in range(limits.CONNECTION_TASKS):
            seat.tree.nursery.start_soon(trio.sleep_forever)
        assert await here.violated() == {"excess_tasks": 8}  # seven actors and a downlink


async def test_an_utterance_without_a_stream_is_unserved(autojump_clock: MockClock) -> None:
    async with rig() as here:
        _, seat = await here.connect()
        assert await here.violated() == {}
        assert seat.tree is not None
        seat.tree.session.active = Utterance(7, "me", "planted")
        assert await here.violated() == {"unserved_utterances": 1}
        seat.tree.session.active = None


async def test_a_channel_end_left_open_is_counted(
    autojump_clock: MockClock, log: list[Any]
) -> None:
    async with rig() as here:
        client, seat = await here.connect()
        assert seat.tree is not None
        planted = seat.tree.wires.inbound.send.clone()
        client.leave()
        assert await here.violated() == {"leaked_channel_ends_total": 1}
        assert await here.violated() == {"leaked_channel_ends_total": 1}
        assert len(violations(log)) == 1, "a count that stays is no news"
        planted.close()


@pytest.mark.parametrize(
    ("actor", "place", "limit"),
    [("limiter", Limiter, 0.0), ("bridge", Bridge, 30.0 + 60.0), ("writer", Writer, 10.0)],
)
async def test_an_actor_that_does_not_take_from_its_full_queue_is_stuck(
    actor: str,
    place: object,
    limit: float,
    autojump_clock: MockClock,
    log: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(place, "run", stand)
    async with rig(idle_timeout_s=0, max_duration_s=0) as here:
        client, seat = await here.connect()
        for number in range(64):
            client.say("ping", f"p{number}")
        await trio.sleep(limit + limits.INVARIANT_SLACK_S - 1)
        assert await here.violated() == {}
        await trio.sleep(2)
        assert await here.violated() == {"stuck_actors": 1}
        assert violations(log)[0]["connections"] == ["sess-0"]
        assert seat.tree is not None
        assert stuck(seat.tree, here.service.settings) == [actor]


async def test_who_waits_for_a_slow_engine_or_a_slow_client_is_not_stuck(
    autojump_clock: MockClock,
) -> None:
    slow = Script(slots=9, step_s=8.0)  # a hundred times slower than the speaker
    async with rig(slow, idle_timeout_s=0, max_audio_backlog_s=1) as here:
        client, seat = await here.connect()
        client.start("a")
        for number in range(40):
            client.audio(speech(0.5, seed=number))
        for _ in range(40):
            await trio.sleep(20)
            assert await here.violated() == {}
        assert seat.tree is not None
        assert seat.tree.statistics().queues["inbound"].full


async def test_without_a_back_pressure_timeout_the_bridge_may_wait_for_ever(
    autojump_clock: MockClock,
) -> None:
    hung = Script(slots=9, hang_after=0)
    async with rig(hung, backpressure_timeout_s=0, idle_timeout_s=0, max_audio_backlog_s=1) as here:
        client, _ = await here.connect()
        client.start("a")
        for number in range(40):
            client.audio(speech(0.5, seed=number))
        await trio.sleep(3000)
        assert await here.violated() == {}


async def test_a_violation_is_logged_once_a_minute_while_it_lasts(
    autojump_clock: MockClock, log: list[Any]
) -> None:
    async with rig() as here:
        with here.service.admission.admit(WITH_KEY):
            for _ in range(int(limits.INVARIANT_LOG_S * 2)):
                assert await here.violated() == {"stray_tokens": 1}
                await trio.sleep(1)
    lines = violations(log)
    assert len(lines) == 2
    assert lines[0]["invariant"] == "stray_tokens"
    assert lines[0]["count"] == 1
    assert lines[0]["log_level"] == "error"
