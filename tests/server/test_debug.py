"""`/debug/actors`: who may ask, what it shows and never shows, and that asking holds up nobody."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.engine.scripted import FRAME, FRAME_BYTES, Script, speech, transcript
from tests.server.debug_rig import rig
from tests.server.harness import OTHER_KEY, Served, request, serving
from tests.server.wire_client import KEY
from voxtral_actors import limits
from voxtral_actors.protocol.events import Delta
from voxtral_actors.server.debug import BusyError, Debug, Page
from voxtral_actors.server.duty import Duty

SLOW = Script(slots=10_000, step_s=0.08)
HELD = Script(slots=9, hang_after=13 * FRAME)
USED_S = 13 * 0.08
ACTORS = {"bridge", "drain", "duration", "idle", "limiter", "reader", "writer"}


async def ask(server: Served, query: str = "", key: str = KEY) -> Any:
    answer = await request(server.port, f"/debug/actors?api_key={key}{query}")
    assert answer.status == 200, answer
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


@pytest.mark.parametrize("query", ["", "?api_key=", "?api_key=wrong", f"?api_key={KEY}x"])
async def test_p7_without_a_key_it_says_nothing(query: str) -> None:
    with trio.fail_after(10):
        async with serving() as server:
            answer = await server.http("/debug/actors" + query)
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == "bearer"
            assert answer.json() == {"error": "a key of this server is needed"}
            assert server.admission.refused.total() == 0, "asking is no attempt to open a session"


async def test_the_live_tree_of_a_conversation_has_no_text_no_audio_and_no_key() -> None:
    pcm = speech(4)
    with trio.fail_after(10):
        async with serving(HELD) as server, server.session() as client, server.session():
            await client.start("call-7")
            await client.send(pcm)
            heard = ""
            while len(heard) < len(transcript(pcm[: 13 * FRAME_BYTES])):
                heard += (await client.hear(Delta)).delta
            await client.finish("call-7")
            await client.start("call-8")
            await client.alive()
            said = await ask(server, key=OTHER_KEY)

        assert said["status"] == "ready"
        assert said["engine"].items() >= {
            "state": "ready", "name": "scripted", "model": "tiny", "generation": 1, "slots": 9,
            "slots_taken": 2, "slots_leaving": 0, "deaths": 0, "backlog_s": 4 - USED_S,
        }.items()  # fmt: skip
        assert said["process"]["tasks"] > 2 * len(ACTORS)
        assert said["process"]["threads"] >= 1
        assert sys.platform != "linux" or said["process"]["open_files"] > 3
        assert 0 < said["process"]["loop_lag_s"] < 5

        connections = said["connections"]
        assert {**connections, "shown": 2} == {
            "open": 2, "limit": 8, "worst_lag_s": 4 - USED_S, "offset": 0, "shown": 2,
        }  # fmt: skip
        talking, silent = connections["shown"]
        assert client.created is not None
        assert talking["id"] == client.created.id
        assert talking["peer"].startswith("127.0.0.1:")
        assert (talking["state"], silent["state"]) == ("overlapped", "idle")
        assert talking["lag_s"] == 4 - USED_S
        assert talking["stuck"] == silent["utterances"] == []
        tail, active = talking["utterances"]
        assert (tail["request_id"], tail["state"]) == ("call-7", "finalising")
        assert (tail["accepted_s"], tail["forwarded_s"], tail["used_s"]) == (4.0, 4.0, USED_S)
        assert (tail["streams"], tail["rolls"], tail["replays"]) == (1, {}, 0)
        assert tail["kept_s"] == 4.0
        assert (active["request_id"], active["state"]) == ("call-8", "active")
        assert 0 <= active["age_s"] <= tail["age_s"] <= talking["age_s"] < 10
        assert set(talking["queues"]) == {"inbound", "admitted", "outbound"}
        assert talking["windows"]["messages"] == {"used": 3, "limit": 200, "seconds": 60.0}
        names = [actor["name"] for actor in talking["actors"]]
        assert set(names) == {*ACTORS, "voice.downlink"}
        assert names.count("voice.downlink") == 2
        waiting = {actor["name"]: actor["waiting"] for actor in silent["actors"]}
        assert waiting["limiter"] == "Limiter.run: Queue.take"
        assert waiting["idle"] == "idle.run: sleep_until"
        assert waiting["reader"].startswith("QuartTransport.receive: ")

        whole = json.dumps(said)
        assert KEY not in whole
        assert OTHER_KEY not in whole
        assert not [word for word in heard.split() if word in whole]


@pytest.mark.parametrize("query", ["limit=-1", "limit=101", "limit=x", "offset=1e9", "limit=٣"])
async def test_a_page_that_is_none_is_400(query: str) -> None:
    from urllib.parse import quote

    with trio.fail_after(10):
        async with serving() as server:
            answer = await server.http(f"/debug/actors?api_key={KEY}&{quote(query, safe='=')}")
            assert answer.status == 400
            assert "is a whole number from 0 to" in answer.json()["error"]


async def test_it_answers_while_the_engine_starts_and_while_the_server_drains() -> None:
    with trio.fail_after(10):
        async with serving(Script(start_s=0.5)) as server:
            said = await ask(server)
            assert (said["status"], said["engine"]["state"]) == ("starting", "starting")
            assert said["engine"]["model"] is None
            await server.engine.wait_ready()
            async with server.session() as client:
                await client.start()
                server.running.stop.set()
                await server.running.service.drain.wait()
                assert (await ask(server))["status"] == "draining"
                await client.say("end")


async def test_the_worst_come_first_and_pages_follow_each_other() -> None:
    async with rig(Script(slots=99, hang_after=0)) as here:
        for seconds in (1, 3, 0, 2):
            client, _ = await here.connect()
            client.start("a")
            client.audio(speech(seconds))
        await wait_all_tasks_blocked()
        debug = Debug(here.service)

        async def ids(limit: int, offset: int) -> list[str]:
            said = await debug.actors(Page(limit, offset))
            assert said["connections"]["open"] == 4
            assert said["connections"]["worst_lag_s"] == 3
            return [connection["id"] for connection in said["connections"]["shown"]]

        assert await ids(2, 0) == ["sess-1", "sess-3"]
        assert await ids(2, 2) == ["sess-0", "sess-2"]
        assert await ids(2, 4) == await ids(0, 0) == []


@pytest.mark.parametrize("what", ["page", "scrape"])
async def test_thousands_of_connections_are_looked_at_in_turns(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two portions everybody else gets a turn: here another task counts its own."""
    monkeypatch.setattr(limits, "LOOK_AT_ONCE", 20)
    async with rig(SLOW) as here:
        for _ in range(200):
            await here.connect()
        await wait_all_tasks_blocked()
        debug, turns = Debug(here.service), 0

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await trio.lowlevel.checkpoint()
            before = turns
            if what == "scrape":
                await here.invariants.look()
            else:
                said = await debug.actors(Page(100))
                assert len(said["connections"]["shown"]) == 100
                assert len(json.dumps(said)) < 300_000
            nursery.cancel_scope.cancel()
        assert turns - before >= (10 if what == "scrape" else 30) - 1


async def test_one_question_is_answered_at_a_time() -> None:
    async with rig() as here:
        for _ in range(limits.LOOK_AT_ONCE):
            await here.connect()
        debug, busy = Debug(here.service), 0

        async def impatient() -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                await debug.actors(Page())

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(debug.actors, Page())
                nursery.start_soon(impatient)
            while busy == 0:
                await trio.lowlevel.checkpoint()
                busy = debug._one_at_a_time.statistics().tasks_waiting
            nursery.cancel_scope.cancel()
        assert not debug._one_at_a_time.locked()


async def test_who_asks_all_the_time_gets_a_tenth_of_the_loop(
    autojump_clock: MockClock,
) -> None:
    duty = Duty()
    with duty.work():
        await trio.sleep(0.1)
    assert not duty.due
    await trio.sleep_until(duty.due_at)
    assert trio.current_time() == pytest.approx(1.0)
    assert duty.due
    with duty.work():
        await trio.sleep(60)
    assert duty.due_at == trio.current_time() + limits.DUTY_PAUSE_MAX_S


async def test_who_cannot_be_answered_in_time_is_told_to_come_back(
    autojump_clock: MockClock,
) -> None:
    async with rig() as here:
        debug = Debug(here.service)

        async def hold() -> None:
            async with debug._one_at_a_time:
                await trio.sleep_forever()

        here.nursery.start_soon(hold)
        await wait_all_tasks_blocked()
        with pytest.raises(BusyError):
            await debug.actors(Page())
        assert trio.current_time() == limits.DUTY_WAIT_S < limits.HANDSHAKE_S
