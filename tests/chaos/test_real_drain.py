"""P16 at the size of a real deploy: fifty people speak, some say nothing, one does not listen."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.chaos.real_harness import assert_no_errors, figures, many_descriptors, scripted_server
from tests.engine.script import FRAME_BYTES, speech, transcript
from tests.server.server_process import ServerProcess
from tests.server.wire_client import Client, deaf_client
from voxtral_actors.limits import DRAIN_SPREAD_SHARE, STOP_RESERVE_S
from voxtral_actors.protocol.events import Done, Error

SPEAKERS = 50
SILENT = 10
DRAIN_S = 20


class Company:
    """Those who are connected to a server that is told to stop when all of them speak."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.left_at: list[float] = []
        """When each of them was told to go, on trio's clock."""
        self._speaking = 0
        self._everybody = trio.Event()

    async def everybody_speaks(self) -> None:
        await self._everybody.wait()

    @asynccontextmanager
    async def speaker(self) -> AsyncIterator[Client]:
        """One whose utterance has begun; it must be told to go when it has had its text."""
        async with self.server.session() as client:
            await client.start()
            await client.alive()
            self._speaking += 1
            if self._speaking == SPEAKERS:
                self._everybody.set()
            yield client
            await self._told_to_go(client)

    async def be_silent(self) -> None:
        async with self.server.session() as client:
            await self._told_to_go(client)

    async def _told_to_go(self, client: Client) -> None:
        assert (await client.hear(Error)).code == "shutting_down"
        self.left_at.append(trio.current_time())
        assert await client.closed() == (1012, "shutting_down")


@asynccontextmanager
async def company(folder: Path, **env: str) -> AsyncIterator[Company]:
    """A server with a client that does not read; it must end in time and in good order."""
    async with (
        scripted_server(
            folder,
            MAX_CONCURRENT_CONNECTIONS="100",
            VOXTRAL_DRAIN_TIMEOUT_S=str(DRAIN_S),
            **env,
        ) as server,
        deaf_client(await server.port()),
    ):
        yield Company(server)
        assert await server.exit_status() == 0
    assert_no_errors(server)


async def test_p16_fifty_utterances_finish_although_one_client_is_deaf(tmp_path: Path) -> None:
    async def speak(here: Company, seed: int) -> None:
        pcm = speech(3, seed)
        async with here.speaker() as client, trio.open_nursery() as nursery:

            async def go_on() -> None:
                for at in range(0, len(pcm), FRAME_BYTES):
                    if at == FRAME_BYTES * 5:
                        await here.server.said("server.draining")
                    await client.send(pcm[at : at + FRAME_BYTES])
                await client.finish()

            nursery.start_soon(go_on)
            text, last = await client.transcript("r1")
            assert (text, type(last)) == (transcript(pcm), Done)

    with trio.fail_after(30 + DRAIN_S), many_descriptors(500):
        async with company(tmp_path, WS_WRITE_DEADLINE_S="3") as here:
            async with trio.open_nursery() as nursery:
                for _ in range(SILENT):
                    nursery.start_soon(here.be_silent)
                for seed in range(SPEAKERS):
                    nursery.start_soon(speak, here, seed)
                await here.everybody_speaks()
                here.server.signal(signal.SIGTERM)
                signalled = trio.current_time()
                await here.server.said("server.draining")
                assert (await here.server.http("/readyz")).status == 503
                assert (await figures(here.server))["draining"] == 1
                async with here.server.connect() as late:
                    error = await late.refused("shutting_down", "shutting_down")
                    assert error.details["retry"] is True
            await here.server.exit_status()
            assert trio.current_time() - signalled < DRAIN_S


async def test_p16_fifty_utterances_that_nobody_ends_get_their_text_in_time(tmp_path: Path) -> None:
    """Not all at once, and although the deaf one is not given up before the end."""

    async def speak(here: Company, seed: int) -> None:
        pcm = speech(2, seed)
        async with here.speaker() as client:
            await client.send(pcm)
            text, last = await client.transcript("r1")
            assert (text, type(last)) == (transcript(pcm), Done)

    with trio.fail_after(30 + DRAIN_S), many_descriptors(500):
        async with company(tmp_path, WS_WRITE_DEADLINE_S="60", WS_CLOSE_GRACE_S="2") as here:
            async with trio.open_nursery() as nursery:
                for seed in range(SPEAKERS):
                    nursery.start_soon(speak, here, seed)
                await here.everybody_speaks()
                here.server.signal(signal.SIGTERM)
                signalled = trio.current_time()
            await here.server.exit_status()
            assert trio.current_time() - signalled < DRAIN_S
    assert len(here.left_at) == SPEAKERS
    # Fifty random turns in the spread: that they are all in one half of it has no chance.
    spread = DRAIN_SPREAD_SHARE * (DRAIN_S - STOP_RESERVE_S)
    assert max(here.left_at) - min(here.left_at) > spread / 2
