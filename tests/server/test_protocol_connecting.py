"""The wire, row by row, over real sockets: how a connection begins, and how it is refused."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from tests.engine.scripted import NEVER, Script
from tests.server.harness import OTHER_KEY, Served, serving, until
from tests.server.wire_client import KEY, SESSION
from voxtral_actors import limits
from voxtral_actors.protocol.events import SessionCreated

PLACES: dict[str, dict[str, Any]] = {
    "query": {"query": "api_key={key}"},
    "x-api-key": {"X_API_Key": "{key}"},
    "bearer": {"Authorization": "Bearer {key}"},
    "bearer, any case": {"authorization": "bEARER {key}"},
    "subprotocol": {"subprotocols": ["voxtral.v1", "voxtral-api-key.{key}"]},
    "subprotocol, other order": {"subprotocols": ["voxtral-api-key.{key}", "voxtral.v1"]},
}


def offer(place: str, key: str) -> dict[str, Any]:
    """The arguments of `connect` that present a key in this place."""
    return {
        name: value.format(key=key)
        if isinstance(value, str)
        else [v.format(key=key) for v in value]
        for name, value in PLACES[place].items()
    }


@pytest.mark.parametrize("place", PLACES)
async def test_a_key_is_taken_from_every_place(place: str) -> None:
    with trio.fail_after(10):
        async with serving() as server:
            for key in (KEY, OTHER_KEY):
                async with server.connect(**offer(place, key)) as client:
                    await client.hear(SessionCreated)
                    spoken = "voxtral.v1" if place.startswith("subprotocol") else None
                    assert client.subprotocol == spoken
            for key in ("wrong", f"{KEY}x", KEY[:-1], KEY.upper(), f"{KEY},{OTHER_KEY}"):
                if "," in key and place.startswith("subprotocol"):
                    continue  # a comma ends the item
                async with server.connect(**offer(place, key)) as client:
                    await client.refused("authentication_failed", "authentication_failed")


async def test_session_created_says_all_that_a_client_needs() -> None:
    with trio.fail_after(10):
        async with serving(WS_IDLE_TIMEOUT_S="20", WS_MAX_BAD_MESSAGES="7") as server:
            async with server.session() as client:
                created = client.created
                assert created is not None
                assert created.session_id == created.id
                assert created.id.startswith("sess-")
                assert created.request_id == "connection"
                assert abs(created.created - time.time()) < 10
                shown = attrs.asdict(created)
                for name in ("id", "session_id", "request_id", "created"):
                    del shown[name]
                assert shown == {
                    "model": "tiny",
                    "engine": "scripted",
                    "sample_rate": 16_000,
                    "transcription_delay_ms": 80,
                    "note": "Not a recogniser.",
                    "limits": {
                        "max_message_bytes": 1_048_576,
                        "max_messages_per_window": 200,
                        "message_window_seconds": 60,
                        "max_cancels_per_window": 50,
                        "cancel_window_seconds": 60,
                        "max_audio_backlog_s": 30,
                        "max_bad_messages": 7,
                        "idle_timeout_s": 20,
                        "max_connection_duration_s": 5400,
                    },
                }
            async with server.session() as other:
                assert other.created is not None
                assert other.created.id != created.id


async def test_the_clients_session_id_is_echoed_from_its_first_message_on() -> None:
    with trio.fail_after(10):
        async with serving(WS_MAX_BAD_MESSAGES="2") as server, server.session() as client:
            assert client.created is not None
            await client.send("no JSON, no ids")
            error = await client.refused("invalid_message", "invalid_json")
            assert (error.session_id, error.request_id) == (client.created.id, "connection")
            await client.say("ping", "p")
            assert (await client.next()).session_id == SESSION
            await client.send("no JSON, no ids")
            error = await client.refused("invalid_message", "invalid_json")
            assert (error.session_id, error.request_id) == (SESSION, "connection")
            last = await client.refused("invalid_message", "too_many_bad_messages")
            assert (last.session_id, last.request_id) == (SESSION, "connection")
            assert await client.closed() == (4009, "too_many_bad_messages")


# --- Refusals ------------------------------------------------------------------------------------


@asynccontextmanager
async def plain() -> AsyncIterator[Served]:
    async with serving() as server:
        yield server


@asynccontextmanager
async def full() -> AsyncIterator[Served]:
    async with serving(MAX_CONCURRENT_CONNECTIONS="1") as server, server.session():
        yield server


@asynccontextmanager
async def starting() -> AsyncIterator[Served]:
    async with serving(Script(start_s=NEVER)) as server:
        yield server


@asynccontextmanager
async def restarting() -> AsyncIterator[Served]:
    async with serving(Script(fail_start=1000)) as server:
        await until(lambda: server.engine.statistics().deaths == 1, "the engine did not die")
        yield server


@asynccontextmanager
async def draining() -> AsyncIterator[Served]:
    async with serving() as server, server.session() as client:
        await client.start()
        await client.alive()
        server.running.stop.set()
        await until(lambda: server.running.service.drain.started, "no drain")
        yield server
        await client.say("cancel")


@attrs.frozen
class Refusal:
    state: Any
    offer: dict[str, str]
    code: str
    close: int
    retry_after_s: float | None


GOOD = {"X_API_Key": KEY}
REFUSALS = {
    "missing key": Refusal(plain, {}, "authentication_failed", 1008, None),
    "bad key": Refusal(plain, {"X_API_Key": "wrong"}, "authentication_failed", 1008, None),
    "origin": Refusal(
        plain, {**GOOD, "Origin": "https://elsewhere.example"}, "origin_not_allowed", 1008, None
    ),
    "capacity": Refusal(full, GOOD, "server_at_capacity", 1013, limits.RETRY_AFTER_CAPACITY_S),
    "starting": Refusal(starting, GOOD, "engine_unavailable", 1013, limits.RETRY_AFTER_ENGINE_S),
    "restarting": Refusal(
        restarting, GOOD, "engine_unavailable", 1013, limits.RETRY_AFTER_ENGINE_S
    ),
    "draining": Refusal(draining, GOOD, "shutting_down", 1012, limits.RETRY_AFTER_DRAIN_S),
}


@pytest.mark.parametrize("row", REFUSALS.values(), ids=REFUSALS.keys())
async def test_p17_a_refusal_is_one_error_and_a_close(row: Refusal) -> None:
    with trio.fail_after(10):
        async with row.state() as server, server.connect(**row.offer) as client:
            error = await client.refused(row.code, row.code)
            assert error.session_id.startswith("sess-")
            assert error.request_id == "connection"
            details: dict[str, object] = {"retry": row.retry_after_s is not None}
            if row.retry_after_s is not None:
                details["retry_after_s"] = row.retry_after_s
            assert error.details == details
            assert error.message
            assert await client.closed() == (row.close, row.code)
            assert server.admission.refused == {row.code: 1}


async def test_a_refused_client_is_not_listened_to() -> None:
    """What it sends after its refusal has no effect and no answer, and its socket ends."""
    with trio.fail_after(10):
        async with serving() as server:
            async with server.connect(X_API_Key="wrong") as client:
                await client.say("ping")
                await client.start()
                await client.refused("authentication_failed", "authentication_failed")
                assert await client.closed() == (1008, "authentication_failed")
            await server.empty()
            assert server.engine.statistics().streams_opened == 0
