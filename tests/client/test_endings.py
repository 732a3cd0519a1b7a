"""How utterances and sessions end when it is the server that ends them."""

from __future__ import annotations

import pytest
import trio

from tests.client.stub import CREATED, Peer, serving
from voxtral_actors.client import (
    ServerClosed,
    UtteranceEnded,
    UtteranceFailed,
    connect,
)
from voxtral_actors.protocol.commands import Append, End, Finalise, Start
from voxtral_actors.protocol.events import Delta, Done, Error, Usage

LIMIT_S = 10
SECOND = bytes(range(250)) * 128
USAGE = Usage(1, 1, 2, 1.0)


@pytest.mark.parametrize(
    ("code", "reason", "retry", "retry_after"),
    [
        (1012, "shutting_down", True, 1.0),
        (4000, "idle_timeout", True, None),
        (4003, "max_duration", True, None),
        (4009, "too_many_bad_messages", False, None),
        (1011, "internal_error", True, None),
        (1009, "message_too_big", False, None),
        (1001, "", True, None),
        (4777, "from_the_future", False, None),
    ],
)
async def test_the_server_closes_in_the_middle(
    code: int, reason: str, retry: bool, retry_after: float | None
) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        await peer.expect(Append)
        await peer.send(Delta("s", "u", "last words", 80))
        await peer.close(code, reason)

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub:
            heard: list[str] = []
            with pytest.raises(ServerClosed) as caught:
                await _collect(stub.url, heard)
        assert heard == ["last words"]
        assert (caught.value.code, caught.value.reason) == (code, reason)
        assert (caught.value.retry, caught.value.retry_after) == (retry, retry_after)


async def _collect(url: str, heard: list[str]) -> None:
    async with connect(url, reconnect=None) as session, session.utterance("u") as utterance:
        await utterance.send(SECOND)
        async for event in utterance:
            assert isinstance(event, Delta)
            heard.append(event.delta)


async def test_a_socket_that_is_cut_is_1006_and_worth_a_retry() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        await peer.expect(Append)
        await peer.ws._stream.aclose()

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub:
            with pytest.raises(ServerClosed) as caught:
                await _collect(stub.url, [])
        assert (caught.value.code, caught.value.retry) == (1006, True)


async def test_a_silent_close_is_not_an_error_for_who_asks_nothing() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        await peer.close(4000, "idle_timeout")

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub, connect(stub.url, reconnect=None) as session:
            await session.link.ended.wait()
            assert isinstance(session.link.failure, ServerClosed)


async def test_an_error_ends_the_utterance_and_not_the_session() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        await peer.expect(Append)
        await peer.send(Error("s", "u", "backlog_exceeded", "too far behind", "no_progress"))
        await peer.expect(Finalise)
        await peer.send(Done("s", "v", "fine", USAGE))
        await peer.expect(End)
        await peer.close(1000, "end")

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub, connect(stub.url, reconnect=None) as session:
            async with session.utterance("u") as utterance:
                await utterance.send(SECOND)
                with pytest.raises(UtteranceFailed) as caught:
                    await utterance.text()
                with pytest.raises(UtteranceFailed):
                    await utterance.finish()
            assert (caught.value.code, caught.value.reason_code) == (
                "backlog_exceeded",
                "no_progress",
            )
            async with session.utterance("v") as utterance:
                await utterance.finish()
                assert await utterance.text() == "fine"
        assert "Cancel" not in stub.peers[0].kinds


async def test_a_message_that_was_not_acted_on_fails_the_utterance_and_cancels_it() -> None:
    """Audio the server refused is missing from the text: better no text than a wrong one."""

    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        await peer.expect(Append)
        await peer.send(Error("s", "u", "rate_limited", "slow down", "message_rate_limited"))
        await peer.expect(End)
        await peer.close(1000, "end")

    with trio.fail_after(LIMIT_S):
        async with (
            serving(script) as stub,
            connect(stub.url, reconnect=None) as session,
            session.utterance("u") as utterance,
        ):
            await utterance.send(SECOND)
            with pytest.raises(UtteranceFailed):
                await utterance.text()
        assert stub.peers[0].kinds == ["Start", "Append", "Cancel", "End"]


async def test_a_done_before_finish_ends_the_sending() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        await peer.expect(Start)
        await peer.send(Done("s", "u", "drained", USAGE))
        await peer.expect(End)
        await peer.close(1000, "end")

    with trio.fail_after(LIMIT_S):
        async with (
            serving(script) as stub,
            connect(stub.url, reconnect=None) as session,
            session.utterance("u") as utterance,
        ):
            assert await utterance.text() == "drained"
            with pytest.raises(UtteranceEnded, match="finalised by the server"):
                await utterance.send(SECOND)
            await utterance.finish()
