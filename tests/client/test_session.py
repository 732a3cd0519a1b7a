"""Sessions and utterances against the scripted server."""

from __future__ import annotations

import pytest
import trio

from tests.client.stub import CREATED, KEY, Peer, polite, serving
from voxtral_actors.client import (
    RequestRefused,
    Session,
    UtteranceCancelled,
    connect,
)
from voxtral_actors.protocol.commands import Append, Cancel, End, Finalise, Start
from voxtral_actors.protocol.events import Cancelled, Delta, Done, Error, Usage

LIMIT_S = 10
SECOND = bytes(range(250)) * 128
USAGE = Usage(1, 1, 2, 1.0)


async def test_one_utterance_from_start_to_done() -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(polite) as stub, connect(stub.url, api_key=KEY) as session:
            assert session.created == CREATED
            async with session.utterance("u1") as utterance:
                await utterance.send(SECOND)
                await utterance.finish()
                events = [event async for event in utterance]
                again = await utterance.text()

        assert [type(event) for event in events][-1] is Done
        assert "".join(e.delta for e in events if isinstance(e, Delta)) == "one two 1"
        assert again == "one two 1"
        assert stub.peers[0].audio == SECOND
        assert session.statistics().utterances == 0


async def test_the_key_is_a_header_and_not_in_the_url() -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(polite) as stub, connect(stub.url, api_key=KEY):
            pass

        assert stub.peers[0].headers[b"authorization"] == b"Bearer " + KEY.encode()
        assert stub.peers[0].path == "/ws"


@pytest.mark.parametrize("binary", [True, False])
async def test_audio_cut_anywhere_arrives_whole(binary: bool) -> None:
    """Odd pieces and pieces below the free append are joined; large ones are divided."""
    with trio.fail_after(LIMIT_S):
        async with (
            serving(polite) as stub,
            connect(stub.url, binary=binary) as session,
            session.utterance() as utterance,
        ):
            audio = SECOND * 3
            for start, end in [(0, 1), (1, 1), (1, 700), (700, 701), (701, 90_001), (90_001, None)]:
                await utterance.send(memoryview(audio)[start:end])
            await utterance.finish()
            await utterance.finish()
            await utterance.text()

        frames = [command for command in stub.peers[0].got if isinstance(command, Append)]
        assert b"".join(frame.audio for frame in frames) == audio
        assert all(640 <= len(frame.audio) <= 32_000 for frame in frames[:-1])
        assert {frame.request_id is None for frame in frames} == {binary}


async def test_half_a_sample_at_the_end_is_an_error() -> None:
    with trio.fail_after(LIMIT_S):
        async with (
            serving(polite) as stub,
            connect(stub.url) as session,
            session.utterance() as utterance,
        ):
            await utterance.send(b"abc")
            with pytest.raises(ValueError, match="odd number of bytes"):
                await utterance.finish()


async def test_leaving_the_block_cancels_on_the_server() -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(polite) as stub, connect(stub.url) as session:
            async with session.utterance("left") as utterance:
                await utterance.send(SECOND)
            async with session.utterance("next") as utterance:
                await utterance.finish()
                assert await utterance.text() == "two 0"

        kinds = stub.peers[0].kinds
        assert kinds == ["Start", "Append", "Cancel", "Start", "Finalise", "End"]
        assert next(c for c in stub.peers[0].got if isinstance(c, Cancel)).request_id == "left"


async def test_a_users_exception_comes_out_bare_and_the_utterance_is_cancelled() -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(polite) as stub:
            with pytest.raises(ZeroDivisionError):
                await _fail_inside(stub.url)
            await stub.peers[0].left.wait()
        assert stub.peers[0].kinds == ["Start", "Append", "Cancel"]


async def _fail_inside(url: str) -> None:
    async with connect(url) as session, session.utterance() as utterance:
        await utterance.send(SECOND)
        raise ZeroDivisionError


async def test_a_cancelled_scope_leaves_nothing_behind() -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(polite) as stub:
            with trio.CancelScope() as scope:
                async with connect(stub.url) as session, session.utterance() as utterance:
                    scope.cancel()
                    await utterance.text()
            assert scope.cancelled_caught
            assert session.link.ended.is_set()
            await stub.peers[0].left.wait()
        assert stub.peers[0].kinds == ["Start", "Cancel"]


async def test_barge_in_stops_the_older_one() -> None:
    with trio.fail_after(LIMIT_S):
        async with (
            serving(polite) as stub,
            connect(stub.url) as session,
            session.utterance("old") as old,
        ):
            await old.send(SECOND)
            async with session.utterance("new") as new:
                with pytest.raises(UtteranceCancelled, match="superseded"):
                    await old.send(SECOND)
                with pytest.raises(UtteranceCancelled, match="superseded"):
                    await old.text()
                await new.finish()
                assert await new.text() == "two 0"
        assert stub.peers[0].kinds.count("Cancel") == 0


async def test_cancel_waits_until_it_is_over() -> None:
    with trio.fail_after(LIMIT_S):
        async with (
            serving(polite) as stub,
            connect(stub.url) as session,
            session.utterance() as utterance,
        ):
            await session.cancel("changed my mind")
            assert isinstance(utterance.outcome, Cancelled)
            assert utterance.outcome.reason == "changed my mind"
            await session.cancel()
            with pytest.raises(UtteranceCancelled):
                await utterance.send(SECOND)
        assert stub.peers[0].kinds == ["Start", "Cancel", "End"]


async def test_a_refused_cancel_is_told_and_the_utterance_goes_on() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        await peer.expect(Cancel)
        why = "rate_limited", "too many cancels", "cancel_rate_limited"
        await peer.send(Error("s", "u", *why))
        await peer.expect(Finalise)
        await peer.send(Done("s", "u", "still here", USAGE))
        await peer.expect(End)
        await peer.close(1000, "end")

    with trio.fail_after(LIMIT_S):
        async with (
            serving(script) as stub,
            connect(stub.url) as session,
            session.utterance("u") as utterance,
        ):
            with pytest.raises(RequestRefused) as caught:
                await utterance.cancel()
            assert caught.value.retry
            await utterance.finish()
            assert await utterance.text() == "still here"


async def test_leaving_a_tail_early_spares_the_active_one() -> None:
    """A cancel that crosses the tail's done would reach the server as a cancel of the active."""

    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        await peer.expect(Finalise)
        await peer.expect(Finalise)
        await peer.send(Done("s", "tail", "late", USAGE), Done("s", "active", "good", USAGE))
        await peer.expect(End)
        await peer.close(1000, "end")

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub, connect(stub.url) as session:
            tail = session.utterance("tail")
            async with tail:
                await tail.finish()
                active = await session.utterance("active").__aenter__()
            assert isinstance(tail.outcome, Cancelled)
            await active.finish()
            assert await active.text() == "good"
            await active.__aexit__(None, None, None)
        assert "Cancel" not in stub.peers[0].kinds


async def test_ping_and_update() -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(polite) as stub, connect(stub.url, session_id="me") as session:
            assert 0 <= await session.ping() < LIMIT_S
            await session.update("tiny")
            assert session.statistics().waiting_requests == 0
        assert {c.session_id for c in stub.peers[0].got if isinstance(c, End)} == {"me"}


async def test_after_end_everything_is_closed() -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(polite) as stub, connect(stub.url) as session:
            async with session.utterance() as utterance:
                await session.end()
                await session.end()
                with pytest.raises(trio.ClosedResourceError):
                    await utterance.send(SECOND)
                with pytest.raises(trio.ClosedResourceError):
                    await utterance.text()
            with pytest.raises(trio.ClosedResourceError):
                await session.ping()
        assert stub.peers[0].kinds == ["Start", "End"]


async def test_deltas_nobody_takes_are_merged_and_hold_up_nobody() -> None:
    count = 5000

    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        await peer.expect(Start)
        await peer.expect(Start)
        for index in range(count):
            await peer.send(Delta("s", "slow", "x", index))
        await peer.send(Done("s", "slow", "x" * count, USAGE), Done("s", "fast", "y", USAGE))
        await peer.expect(End)
        await peer.close(1000, "end")

    async def fast(session: Session) -> None:
        async with session.utterance("fast") as utterance:
            await utterance.text()

    with trio.fail_after(LIMIT_S):
        async with (
            serving(script) as stub,
            connect(stub.url, reconnect=None) as session,
            session.utterance("slow") as slow,
        ):
            await fast(session)
            events = [event async for event in slow]
        assert [type(event) for event in events] == [Delta, Done]
        assert isinstance(events[0], Delta)
        assert (len(events[0].delta), events[0].audio_ms) == (count, count - 1)


async def test_a_send_that_is_cancelled_loses_nothing() -> None:
    """Frames are written whole by one task, so giving up on a send does not harm the stream."""
    gate = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        await gate.wait()
        await polite_rest(peer)

    async def polite_rest(peer: Peer) -> None:
        await peer.expect(Finalise)
        await peer.send(Done("s", "u", "whole", USAGE))
        await peer.expect(End)
        await peer.close(1000, "end")

    audio = SECOND * 400  # 12.8 MB: more than the kernel buffers of both sides hold
    with trio.fail_after(LIMIT_S):
        async with (
            serving(script) as stub,
            connect(stub.url, reconnect=None) as session,
            session.utterance("u") as utterance,
        ):
            with trio.move_on_after(0.2) as scope:
                await utterance.send(audio)
            assert scope.cancelled_caught
            assert session.statistics().queued_frames <= 4
            gate.set()
            await utterance.finish()
            assert await utterance.text() == "whole"
        assert stub.peers[0].audio == audio


async def test_a_request_id_in_use_is_refused_here() -> None:
    with trio.fail_after(LIMIT_S):
        async with (
            serving(polite) as stub,
            connect(stub.url) as session,
            session.utterance("u"),
        ):
            with pytest.raises(ValueError, match="in use"):
                await session.utterance("u").__aenter__()
        assert stub.peers[0].kinds == ["Start", "Cancel", "End"]
