"""The wire, row by row, over real sockets: every message of the client and what comes of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.engine.scripted import Script, speech, transcript
from tests.server.harness import serving
from tests.server.wire_client import SESSION, envelope
from tests.server.wire_helpers import TEXT, frame
from voxtral_actors.protocol.events import (
    Cancelled,
    Delta,
    Done,
    Error,
    Pong,
    SessionEnd,
    SessionUpdated,
)

CHUNK = 2560
START = envelope("input_audio_buffer.commit")
PCM = speech(1.0, seed=1)


# --- ping, end, cancel, session.update -----------------------------------------------------------


@pytest.mark.parametrize("payload", [{}, {"n": 1}, {"deep": [{"a": None}], "type": "end"}])
async def test_ping_is_answered_with_its_ids(payload: dict[str, Any]) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            await client.say("ping", "p7", **payload)
            assert await client.next() == Pong(SESSION, "p7")


async def test_a_payload_may_be_left_out() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            for what in ("ping", "cancel", "session.update", "input_audio_buffer.commit"):
                await client.send(envelope(what))
            await client.hear(Pong)
            await client.hear(Cancelled)
            await client.hear(SessionUpdated)
            await client.alive()
            await client.send(envelope("end", "bye"))
            await client.hear(Cancelled)
            assert await client.next() == SessionEnd(SESSION, "bye", "end")
            assert await client.closed() == (1000, "end")


async def test_end_cancels_what_is_active_and_closes_1000() -> None:
    with trio.fail_after(10):
        async with serving(Script(hang_after=0)) as server, server.session() as client:
            await client.start("tail")
            await client.finish("tail")
            await client.start("active")
            await client.say("end", "bye")
            assert await client.next() == Cancelled(SESSION, "tail", "end")
            assert await client.next() == Cancelled(SESSION, "active", "end")
            assert await client.next() == SessionEnd(SESSION, "bye", "end")
            assert await client.closed() == (1000, "end")


async def test_what_comes_with_end_is_ignored() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            frames = [envelope("end", "bye"), envelope("ping"), START]
            whole = b"".join(frame(TEXT, text.encode()) for text in frames)
            await client.raw.send(whole)  # in one packet
            await client.hear(SessionEnd)
            assert await client.closed() == (1000, "end")
            assert server.engine.statistics().streams_opened == 0


@pytest.mark.parametrize(
    ("payload", "reason"),
    [({}, "client_request"), ({"reason": None}, "client_request"), ({"reason": "Ж"}, "Ж")],
    ids=["no reason", "null", "a reason"],
)
async def test_p12_cancel_ends_the_active_utterance(payload: dict[str, Any], reason: str) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            await client.start("u")
            await client.say("cancel", "u", **payload)
            assert await client.next() == Cancelled(SESSION, "u", reason)
            await client.send(PCM)  # it was on its way; no utterance is named, none is active
            await client.refused("invalid_payload", "no_active_request")
            await client.utter(PCM, "next")
            text, done = await client.transcript("next")
            assert isinstance(done, Done)
            assert text == done.text == transcript(PCM)


async def test_cancel_is_answered_even_if_nothing_is_active() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            await client.say("cancel", "u", reason="why not")
            assert await client.next() == Cancelled(SESSION, "u", "no_active_request")
            await client.alive()


async def test_p12_a_cancelled_utterance_is_never_heard_of_again() -> None:
    script = Script(step_s=0.005, late=True, garbage=True)
    with trio.fail_after(10):
        async with serving(script) as server, server.session() as client:
            await client.start("u")
            await client.send(PCM)
            await client.hear(Delta)
            await client.say("cancel", "u")
            await client.hear_past_deltas(Cancelled)
            await client.utter(PCM, "next")
            text, done = await client.transcript("next")  # fails on any other request_id
            assert isinstance(done, Done)
            assert text == transcript(PCM)


async def test_session_update_takes_the_served_model_only() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            for payload in ({}, {"model": None}, {"model": "tiny"}, {"model": "tiny", "x": 1}):
                await client.say("session.update", "u", **payload)
                assert await client.next() == SessionUpdated(SESSION, "u", "tiny")
            await client.say("session.update", "u", model="large")
            error = await client.refused("invalid_payload", "unsupported_model")
            assert error.request_id == "u"
            assert error.details == {"field": "payload.model", "allowed": ["tiny"]}
            assert "large" in error.message


# --- Utterances ----------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "base64"])
async def test_an_utterance_comes_back_as_deltas_and_done(binary: bool) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            await client.utter(PCM, "u", binary=binary)
            deltas = []
            while isinstance(event := await client.next(), Delta):
                assert event.request_id == "u"
                deltas.append(event)
            assert all(delta.delta for delta in deltas)
            positions = [delta.audio_ms for delta in deltas]
            assert positions == sorted(positions)
            assert 0 < positions[-1] <= 1000
            assert isinstance(event, Done)
            assert event.text == "".join(delta.delta for delta in deltas) == transcript(PCM)
            usage = event.usage
            assert usage.audio_seconds == 1.0
            assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_silence_gives_no_deltas_and_an_empty_text() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            await client.utter(bytes(32_000))
            assert (await client.hear(Done)).text == ""
            await client.utter(b"")
            done = await client.hear(Done)
            assert (done.text, done.usage.audio_seconds) == ("", 0)


async def test_p12_a_start_while_another_is_active_supersedes_it() -> None:
    with trio.fail_after(10):
        async with serving(Script(step_s=0.005)) as server, server.session() as client:
            await client.start("old")
            await client.send(PCM)
            await client.utter(PCM, "new")
            superseded = await client.hear_past_deltas(Cancelled)
            assert superseded == Cancelled(SESSION, "old", "superseded")
            text, _ = await client.transcript("new")
            assert text == transcript(PCM)


async def test_a_start_while_another_is_finalising_leaves_its_tail() -> None:
    other = speech(1.0, seed=2)
    with trio.fail_after(10):
        async with serving(Script(step_s=0.01)) as server, server.session() as client:
            await client.utter(PCM, "first")
            await client.utter(other, "second")
            texts = {"first": "", "second": ""}
            heard: list[str] = []
            done: dict[str, str] = {}
            while len(done) < 2:
                event = await client.next()
                heard.append(event.request_id)
                if isinstance(event, Delta):
                    texts[event.request_id] += event.delta
                else:
                    assert isinstance(event, Done), event
                    done[event.request_id] = event.text
            assert texts == done == {"first": transcript(PCM), "second": transcript(other)}
            tail_end = len(heard) - heard[::-1].index("first")
            assert "second" in heard[:tail_end], "the new audio was not taken at the same time"


async def test_audio_for_no_utterance_or_another_is_refused_and_costs_nothing() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.session() as client, server.bystander():

            async def refused(reason_code: str, request_id: str) -> None:
                error = await client.refused("invalid_payload", reason_code)
                assert error.request_id == request_id

            await client.append(PCM, "u")  # before a start
            await refused("no_active_request", "u")
            await client.send(PCM)
            await refused("no_active_request", "connection")
            await client.finish("u")
            await refused("no_active_request", "u")

            await client.start("u")
            await client.append(PCM, "v")  # for another
            await refused("request_id_mismatch", "v")
            await client.finish("v")
            await refused("request_id_mismatch", "v")
            await client.start("u")
            await refused("request_id_in_use", "u")

            await client.send(PCM)
            await client.finish("u")
            await client.append(PCM, "u")  # after a final
            await client.finish("u")
            answers = [await client.hear_past_deltas((Error, Done)) for _ in range(3)]
            errors = [answer for answer in answers if isinstance(answer, Error)]
            assert [error.reason_code for error in errors] == ["no_active_request"] * 2
            assert [answer.text for answer in answers if isinstance(answer, Done)] == [
                transcript(PCM)
            ]
            await client.alive()
