"""Endings that nobody planned: the client is gone, an actor has a bug, the server cancels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from tests.connection.client import SESSION
from tests.connection.fakes import SERVER_ID, connected, house
from tests.connection.stages import LIVE, STAGES, Stage, not_listening, overlapping
from tests.engine.scripted import Script, speech, transcript
from voxtral_actors.connection import bridge, idle, limiter, reader, supervisor, writer
from voxtral_actors.connection.supervisor import Kind, Outcome
from voxtral_actors.connection.transport import Disconnected
from voxtral_actors.connection.voice import Voice
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.limits import LAST_WORDS_S
from voxtral_actors.protocol import events
from voxtral_actors.protocol.closing import Close, farewell
from voxtral_actors.protocol.codec import encode
from voxtral_actors.protocol.events import CONNECTION_REQUEST_ID
from voxtral_actors.protocol.session import Session

BUG = Outcome(Kind.BUG, "internal_error", Close.BUG)
LEFT = Outcome(Kind.NORMAL, "client_left")

every_stage = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)


class OursError(Exception):
    """A bug."""


def broken(*_: Any, **__: Any) -> NoReturn:
    raise OursError("ours")


# --- The client is gone --------------------------------------------------------------------------


@every_stage
async def test_p5_the_client_leaves(stage: Stage) -> None:
    async with connected(LIVE) as connection:
        await stage(connection)
        now = trio.current_time()
        connection.client.leave()
        assert await connection.ended() == LEFT
        assert trio.current_time() == now
        await wait_all_tasks_blocked()

        for part in connection.house.streams:
            assert part.aborted or part.over
            assert part.released
        assert connection.transport.closes == []


@every_stage
async def test_p5_sending_finds_that_nobody_is_there(stage: Stage) -> None:
    async with connected(LIVE) as connection:
        await stage(connection)
        connection.client.fail_send(Disconnected())
        connection.client.read_again()
        connection.client.say("ping")
        assert await connection.ended() == LEFT


@every_stage
async def test_p5_the_socket_was_cut_for_cause(stage: Stage) -> None:
    async with connected(LIVE) as connection:
        await stage(connection)
        connection.transport.departure = "peer_silent"
        connection.client.fail_receive(Disconnected())
        assert await connection.ended() == Outcome(Kind.CLIENT_FAULT, "peer_silent")


# --- A bug ---------------------------------------------------------------------------------------


def break_at(monkeypatch: pytest.MonkeyPatch, kind: type[events.Event]) -> None:
    """`encode` fails on one kind of event, and works for the last words."""

    def picky(event: events.Event) -> str:
        return broken() if isinstance(event, kind) else encode(event)

    monkeypatch.setattr(writer, "encode", picky)


BUGS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "decode": lambda patch: patch.setattr(reader, "decode", broken),
    "admit": lambda patch: patch.setattr(limiter, "_admit", broken),
    "step": lambda patch: patch.setattr(Session, "step", broken),
    "open": lambda patch: patch.setattr(EngineActor, "open", broken),
    "hear": lambda patch: patch.setattr(Voice, "_hear", broken),
    "encode": lambda patch: break_at(patch, events.Delta),
    "timer": lambda patch: patch.setattr(bridge.Bridge, "wind_down", broken),
}


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
async def test_p17_a_bug_is_owned_up_to_and_hurts_nobody_else(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(LIVE) as here, here.connect() as other:
        async with here.connect(max_duration_s=30) as connection:
            connection.may_break = True
            client = connection.client
            await client.hear(events.SessionCreated)
            with monkeypatch.context() as patch:
                bug(patch)
                client.utter("a", speech(1))
                outcome = await connection.ended()

            assert outcome == BUG
            assert client.closed == (1011, "internal_error")
            assert client.heard[-1] in [
                farewell(session_id, CONNECTION_REQUEST_ID, Close.BUG)
                for session_id in (SERVER_ID, SESSION)
            ]
        other.client.utter("a", speech(1))
        assert (await other.client.hear(events.Done, "a")).text == transcript(speech(1))


@every_stage
@pytest.mark.parametrize("fault", ["fail_send", "fail_receive"])
async def test_p17_a_transport_that_breaks_its_contract_is_a_bug(stage: Stage, fault: str) -> None:
    """The last words may well fail the same way: no more than that happens."""
    async with connected(LIVE) as connection:
        connection.may_break = True
        await stage(connection)
        getattr(connection.client, fault)(OursError("neither a message nor Disconnected"))
        connection.client.read_again()
        connection.client.say("ping")

        assert await connection.ended() == BUG
        assert connection.transport.closes == [(1011, "internal_error")]


async def test_p17_an_error_that_cannot_be_said_does_not_stop_the_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with connected() as connection:
        connection.may_break = True
        await connection.client.hear(events.SessionCreated)
        with monkeypatch.context() as patch:
            patch.setattr(writer, "encode", broken)
            patch.setattr(supervisor, "encode", broken)
            connection.client.say("ping")
            assert await connection.ended() == BUG

    assert connection.client.closed == (1011, "internal_error")


async def test_p17_last_words_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(LIVE, write_deadline_s=60) as connection:
        connection.may_break = True
        await not_listening(connection)
        now = trio.current_time()
        connection.client.fail_receive(OursError())
        assert await connection.ended() == BUG
        assert trio.current_time() == now + LAST_WORDS_S


# --- The server cancels --------------------------------------------------------------------------


@every_stage
async def test_p5_cancelled_from_outside(stage: Stage) -> None:
    """This is also how the listener ends a connection whose client is gone."""
    async with connected(LIVE) as connection:
        await stage(connection)
        now = trio.current_time()
        connection.scope.cancel(reason="the test says so")
        assert await connection.ended() == LEFT
        assert trio.current_time() == now
        assert connection.scope.cancelled_caught
        await wait_all_tasks_blocked()

        assert all(part.aborted or part.over for part in connection.house.streams)


async def test_p5_cancelled_during_the_last_words() -> None:
    async with connected(LIVE, write_deadline_s=60) as connection:
        connection.may_break = True
        await not_listening(connection)
        connection.client.fail_receive(OursError())
        await wait_all_tasks_blocked()
        connection.scope.cancel(reason="the test says so")
        assert await connection.ended() == BUG


async def test_p5_a_bug_and_a_cancellation_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug shows only while the actor is being cancelled: it must not go down with that."""

    async def broken_on_the_way_out(*_: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            broken()

    monkeypatch.setattr(idle, "run", broken_on_the_way_out)
    async with connected(LIVE) as connection:
        connection.may_break = True
        await overlapping(connection)
        with capture_logs() as logs:
            connection.scope.cancel(reason="the test says so")
            assert await connection.ended() == BUG
        await wait_all_tasks_blocked()

        assert connection.scope.cancelled_caught
        assert connection.client.closed == (1011, "internal_error")
        bugs = [entry for entry in logs if entry["event"] == "connection.bug"]
        assert [entry["error"] for entry in bugs] == ["OursError: ours"]


async def test_p5_everybody_leaves_at_once() -> None:
    async with house(Script(slots=50, step_s=0.08, release_after_s=0.3)) as here:
        async with trio.open_nursery() as nursery:

            async def one(stage: Stage, number: int) -> None:
                async with here.connect(max_messages_per_window=0) as connection:
                    await stage(connection)
                    await trio.sleep_until(20)
                    if number % 3:
                        connection.client.leave()
                    else:
                        connection.scope.cancel()

            for number in range(40):
                stage = list(STAGES.values())[number % (len(STAGES) - 1)]
                nursery.start_soon(one, stage, number)
        await trio.sleep(0.5)

        assert here.engine.statistics().slots_taken == 0
