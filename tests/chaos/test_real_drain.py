"""P16 at the size of a real deploy: fifty people speak, some say nothing, one does not listen."""

from __future__ import annotations

import signal
from pathlib import Path

import trio

from tests.chaos.real_harness import assert_no_errors, figures, many_descriptors, scripted_server
from tests.engine.script import FRAME_BYTES, speech, transcript
from tests.server.server_process import ServerProcess
from tests.server.wire_client import Client, deaf_client
from voxtral_actors.protocol.events import Done, Error

SPEAKERS = 50
SILENT = 10
DRAIN_S = 20


async def test_p16_fifty_utterances_finish_although_one_client_is_deaf(tmp_path: Path) -> None:
    everybody_speaks = trio.Event()
    speaking = 0

    async def told_to_go(client: Client) -> None:
        assert (await client.hear(Error)).code == "shutting_down"
        assert await client.closed() == (1012, "shutting_down")

    async def speak(server: ServerProcess, seed: int) -> None:
        nonlocal speaking
        pcm = speech(3, seed)
        async with server.session() as client, trio.open_nursery() as nursery:
            await client.start()
            await client.alive()
            speaking += 1
            if speaking == SPEAKERS:
                everybody_speaks.set()

            async def go_on() -> None:
                for at in range(0, len(pcm), FRAME_BYTES):
                    if at == FRAME_BYTES * 5:
                        await server.said("server.draining")
                    await client.send(pcm[at : at + FRAME_BYTES])
                await client.finish()

            nursery.start_soon(go_on)
            text, last = await client.transcript("r1")
            assert (text, type(last)) == (transcript(pcm), Done)
            await told_to_go(client)

    async def be_silent(server: ServerProcess) -> None:
        async with server.session() as client:
            await told_to_go(client)

    with trio.fail_after(30 + DRAIN_S), many_descriptors(500):
        async with (
            scripted_server(
                tmp_path,
                MAX_CONCURRENT_CONNECTIONS="100",
                VOXTRAL_DRAIN_TIMEOUT_S=str(DRAIN_S),
                WS_WRITE_DEADLINE_S="3",
            ) as server,
            deaf_client(await server.port()),
        ):
            async with trio.open_nursery() as nursery:
                for _ in range(SILENT):
                    nursery.start_soon(be_silent, server)
                for seed in range(SPEAKERS):
                    nursery.start_soon(speak, server, seed)
                await everybody_speaks.wait()
                server.signal(signal.SIGTERM)
                signalled = trio.current_time()
                await server.said("server.draining")
                assert (await server.http("/readyz")).status == 503
                assert (await figures(server))["draining"] == 1
                async with server.connect() as late:
                    error = await late.refused("shutting_down", "shutting_down")
                    assert error.details["retry"] is True
            assert await server.exit_status() == 0
            assert trio.current_time() - signalled < DRAIN_S
        assert_no_errors(server)
