"""Recogniser processes killed and stopped under a real server that speaks with real voices.

An utterance whose worker is hit ends in an error that says to try again; tried again, it gives the
text that it gives alone. One beside it, whose worker is let be, does not notice.
"""

from __future__ import annotations

import os
import random
import re
import resource
import signal
from contextlib import ExitStack, suppress
from importlib.resources import files
from itertools import count
from pathlib import Path

import pytest
import trio

pytest.importorskip("pocketsphinx", reason="the embedded engine is not installed")

from bench.processes import family
from tests.chaos.real_harness import unharmed, until_soon
from tests.server.server_process import ServerProcess, server_process
from tests.server.wire_client import CHUNK, Client
from voxtral_actors.client.audio import open_audio
from voxtral_actors.engine import sphinx_worker as wire
from voxtral_actors.limits import METRICS_AGE_S
from voxtral_actors.protocol.events import Done, Error

SPEAKERS = 2
HITS = 4
ASK_AGAIN = {"engine_stream_lost", "engine_stalled"}


def sample() -> bytes:
    with open_audio(Path(str(files("voxtral_actors.demo") / "sample.flac"))) as chunks:
        return b"".join(chunks)


def workers(server: ServerProcess) -> set[int]:
    return set(family(server.process.pid)[1:])


def busy(server: ServerProcess) -> set[int]:
    """Workers that have said more than that they are ready."""
    return {pid for pid in workers(server) if written(pid) > wire.HEADER.size}


def written(pid: int) -> int:
    try:
        found = re.search(r"wchar: (\d+)", Path(f"/proc/{pid}/io").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) if found else 0


async def say(client: Client, pcm: bytes) -> None:
    for start in range(0, len(pcm), CHUNK):
        await client.send(pcm[start : start + CHUNK])


async def until_done(client: Client, pcm: bytes) -> tuple[str, int]:
    """The text of an utterance that is tried until it succeeds, and how often it was."""
    for attempt in count(1):
        name = f"attempt {attempt}"
        await client.start(name)
        async with trio.open_nursery() as nursery:

            async def speak(request_id: str) -> None:
                await say(client, pcm)
                await client.finish(request_id)

            nursery.start_soon(speak, name)
            text, last = await client.transcript(name)
            if isinstance(last, Done):
                return text, attempt
            assert isinstance(last, Error)
            assert (last.code, last.reason_code in ASK_AGAIN) == ("engine_unavailable", True), last
        await settle_errors(client)
    raise AssertionError


async def settle_errors(client: Client) -> None:
    """Pass over what the rest of a failed utterance has earned: audio that nobody asked for."""
    await client.say("ping", "settled")
    while (await client.next()).request_id != "settled":
        pass


@pytest.mark.parametrize(
    ("number", "stall_s"),
    [(signal.SIGKILL, "30"), pytest.param(signal.SIGSTOP, "4", marks=pytest.mark.chaos)],
    ids=["killed", "stopped"],
)
async def test_p11_workers_that_are_hit_cost_their_utterance_and_no_other(
    number: signal.Signals, stall_s: str
) -> None:
    pcm = sample()[: 3 * 32_000]
    rng = random.Random(number)
    heard: list[tuple[str, int]] = []
    with trio.fail_after(90), ExitStack() as handles:
        async with server_process(
            WS_BACKPRESSURE_TIMEOUT_S=stall_s, VOXTRAL_REPLAY_BUDGET_S="0"
        ) as server:
            async with server.session() as client:
                alone, _ = await until_done(client, pcm)
            async with unharmed(server), server.session() as bystander:
                await bystander.start()
                await say(bystander, pcm[:64_000])
                await until_soon(lambda: bool(busy(server)))
                (its_own,) = busy(server)

                async def speak() -> None:
                    async with server.session() as client:
                        heard.append(await until_done(client, pcm))

                async with trio.open_nursery() as nursery:
                    for _ in range(SPEAKERS):
                        nursery.start_soon(speak)
                    await until_soon(lambda: len(busy(server)) > 1)
                    for _ in range(HITS):
                        others = workers(server) - {its_own}
                        if prey := sorted(busy(server) & others or others):
                            with suppress(ProcessLookupError):  # its time was over anyway
                                os.kill(rng.choice(prey), number)
                        await trio.sleep(3 * METRICS_AGE_S)  # anything may have happened by then
                    await say(bystander, pcm[64_000:])
                    await bystander.finish()
                    text, last = await bystander.transcript("r1")
                    assert (text, type(last)) == (alone, Done)
                    await bystander.close()
            assert [text for text, _ in heard] == [alone] * SPEAKERS
            assert sum(attempts for _, attempts in heard) > SPEAKERS, "none was hit"

            server.watch_workers(handles)
            server.signal(signal.SIGTERM)
            assert await server.exit_status() == 0
            await server.workers_ended()


@pytest.mark.parametrize("kills", [1, 2])
async def test_p15_a_killed_worker_costs_an_utterance_no_word(kills: int) -> None:
    """The demo's sentences, spoken live; the client does not notice anything."""
    pcm = sample()
    with trio.fail_after(120):
        async with server_process() as server, server.session() as client:
            alone, _ = await until_done(client, pcm)
            await client.start("again")
            for number in range(kills + 1):
                part = len(pcm) // 2 // (kills + 1) * 2
                begins = number * part
                await say(client, pcm[begins : begins + part] if number < kills else pcm[begins:])
                if number < kills:
                    await trio.sleep(0.5)
                    await until_soon(lambda: bool(busy(server)))
                    for worker in busy(server):
                        os.kill(worker, signal.SIGKILL)
                    await trio.sleep(0.5)
            await client.finish("again")
            text, last = await client.transcript("again")
            await server.said("engine.worker_lost")
            await client.close()

    assert (text, type(last)) == (alone, Done)


async def test_workers_that_cannot_be_started_are_started_when_there_is_room_again() -> None:
    """No descriptor is left for the pipes of a new one."""
    pcm = sample()[: 2 * 32_000]
    limit = resource.RLIMIT_NOFILE
    with trio.fail_after(60):
        async with server_process(VOXTRAL_REPLAY_BUDGET_S="0") as server:
            async with server.session() as client:
                alone, _ = await until_done(client, pcm)
            pid = server.process.pid
            async with unharmed(server), server.session() as client:
                soft, hard = resource.prlimit(pid, limit)
                resource.prlimit(pid, limit, (4, hard))
                for worker in workers(server):
                    os.kill(worker, signal.SIGKILL)
                await server.said("engine.worker_not_started")
                await client.start()
                await client.refused("engine_unavailable", "engine_stream_lost")
                resource.prlimit(pid, limit, (soft, hard))
                assert (await until_done(client, pcm))[0] == alone
                await client.close()
