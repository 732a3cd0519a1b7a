"""A client that is gone and cannot be seen to be: what it held comes back all the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.engine.scripted import Part, Script, speech, transcript
from tests.server.harness import Served, serving, until
from tests.server.wire_client import KEY, Client
from tests.server.wire_helpers import BINARY, Raw, about, frame
from voxtral_actors.limits import PEER_SILENCE_S, SAMPLE_RATE
from voxtral_actors.protocol.events import Delta, SessionCreated

PIECE = bytes(2000)
UNREAD = 64
"""Pieces that are more than all queues between the socket and the engine hold (about twenty
messages, and 64 KiB of one receive), and less than the kernel takes besides: that is as much again
at least, also where the server keeps up so well that the kernel sees no need for larger buffers."""
STALLED_AT = 60 * SAMPLE_RATE
"""More than the bystander says, and quickly sent by one who says nothing else."""
BACKLOG = PATIENCE = 1


async def hang_up(client: Client) -> None:
    await trio.aclose_forcefully(client.raw.stream)


async def flood(client: Client, stream: Part) -> None:
    """Send audio until the server has paused reading and much more is on its way."""
    sent = 0

    async def send() -> None:
        nonlocal sent
        while True:
            await client.raw.send(frame(BINARY, PIECE))
            sent += len(PIECE)

    def paused() -> bool:
        waiting = stream.fed // 2 - STALLED_AT
        return waiting > BACKLOG * SAMPLE_RATE and sent - stream.fed >= UNREAD * len(PIECE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await until(paused, "the server reads on")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("leave", [Client.reset, hang_up], ids=["reset", "plain close"])
async def test_p5_unread_audio_hides_a_disconnect_no_longer_than_the_engine_may_stall(
    leave: Callable[[Client], Awaitable[None]],
) -> None:
    """Reading is paused, so nothing tells of the client's end but the end of that patience."""
    with trio.fail_after(15):
        async with (
            serving(
                Script(hang_after=STALLED_AT),
                WS_BACKPRESSURE_TIMEOUT_S=str(PATIENCE),
                WS_MAX_AUDIO_BACKLOG_S=str(BACKLOG),
                VOXTRAL_REPLAY_BUDGET_S="0",
            ) as server,
            server.bystander(),
        ):
            async with server.session() as client:
                await client.start()
                await client.alive()
                stream = server.scripted.streams[-1]
                began = trio.current_time()
                await flood(client, stream)
                assert held(server) == (2, 2)
                await leave(client)
                left = trio.current_time()
            await until(lambda: held(server) == (1, 1), "the token or the slot is still out")
            freed = trio.current_time()
            assert freed - began >= PATIENCE, "the end was not hidden"
            assert freed - left < PATIENCE + 2
            assert stream.aborted


def held(server: Served) -> tuple[int, int]:
    """Connection tokens and engine slots that are out."""
    return server.admission.open, server.engine.statistics().slots_taken


async def test_p4_a_half_open_peer_gives_its_token_and_its_slot_back(
    autojump_clock: MockClock,
) -> None:
    """In the middle of an utterance no byte comes any more, and no end either."""
    async with serving() as server, trio.open_nursery() as nursery:

        async def session() -> Client:
            ours, theirs = memory_stream_pair()
            nursery.start_soon(server.running.listener.serve_stream, theirs, ("memory", 1))
            client = Client(Raw(ours), None)
            await client.raw.upgrade("/ws", b"X-API-Key: " + KEY.encode())
            await client.hear(SessionCreated)
            return client

        async def stay() -> None:
            while True:
                await other.alive()
                await trio.sleep(PEER_SILENCE_S / 10)

        with trio.fail_after(2 * PEER_SILENCE_S):
            other, silent = await session(), await session()
            nursery.start_soon(stay)
            await silent.start()
            await silent.send(speech(0.24))
            heard = ""
            while heard != transcript(speech(0.24)):
                heard += (await silent.hear(Delta)).delta
            assert held(server) == (2, 1)
            gone_at = trio.current_time()
            await silent.raw.gone()
            assert trio.current_time() - gone_at == about(PEER_SILENCE_S)
            await until(lambda: held(server) == (1, 0), "the token or the slot is still out")
            assert server.running.service.outcomes == {("client_fault", "peer_silent"): 1}
            nursery.cancel_scope.cancel()
