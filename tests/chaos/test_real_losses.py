"""The recognisers of eight sessions killed five times over: everybody only has to wait."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from itertools import pairwise

import pytest
import trio

from tests.chaos.real_harness import figures, unharmed, until_soon
from tests.chaos.test_real_workers import busy, sample, until_done, workers
from tests.server.server_process import server_process
from tests.server.wire_client import CHUNK, KEY
from voxtral_actors.client import Session, Utterance, connect
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE
from voxtral_actors.protocol.events import Delta, Done

SESSIONS = 8
LOSSES = 5
APART_S = 6.0
"""From one loss to the next, and everybody has heard something since the last: engines that die
again and again before they get anywhere are taken for audio that no engine survives."""
UNDER_WAY_S = 0.5
"""Text that was said before the loss has been read by then."""
TIMES = 4
"""The sample is said so often: then nobody has finished before the last loss."""
PACE = 0.25
"""Of live: two cores recognise eight live speakers, and would have nothing left for what has to be
heard again, by recognisers that have to be started first."""


async def speak(utterance: Utterance, pcm: bytes) -> None:
    begin = trio.current_time()
    for start in range(0, len(pcm), CHUNK):
        at_s = start / BYTES_PER_SAMPLE / SAMPLE_RATE / PACE
        await trio.sleep_until(begin + at_s)
        await utterance.send(pcm[start : start + CHUNK])
    await utterance.finish()


@pytest.mark.chaos
async def test_p15_eight_sessions_lose_every_recogniser_five_times_and_no_word() -> None:
    pcm = sample() * TIMES
    texts: list[str] = []
    pauses: list[float] = []
    news: set[int] = set()
    """Who has heard something since the last loss."""

    async def take_part(number: int, session: Session) -> None:
        heard = [trio.current_time()]
        async with session.utterance() as utterance, trio.open_nursery() as nursery:
            nursery.start_soon(speak, utterance, pcm)
            async for event in utterance:
                assert isinstance(event, Delta | Done), event
                heard.append(trio.current_time())
                if isinstance(event, Delta):
                    news.add(number)
            texts.append(await utterance.text())
        pauses.append(max(b - a for a, b in pairwise(heard)))

    with trio.fail_after(400):
        async with server_process(MAX_CONCURRENT_CONNECTIONS=str(SESSIONS + 1)) as server:
            async with server.session() as client:
                alone, _ = await until_done(client, pcm)
            url = f"ws://127.0.0.1:{await server.port()}/ws"

            async def visit(number: int) -> None:
                async with connect(url, api_key=KEY, reconnect=None) as session:
                    await take_part(number, session)

            hit = 0
            async with unharmed(server), trio.open_nursery() as nursery:
                for number in range(SESSIONS):
                    nursery.start_soon(visit, number)
                for _ in range(LOSSES):
                    await trio.sleep(APART_S)
                    await until_soon(lambda: len(news) == SESSIONS)
                    struck = len(busy(server))
                    assert struck >= SESSIONS - 1, "hardly anybody was hit"
                    hit += struck
                    for worker in workers(server):
                        with suppress(ProcessLookupError):  # one that was ending anyway
                            os.kill(worker, signal.SIGKILL)
                    await trio.sleep(UNDER_WAY_S)
                    news.clear()
            counted = await figures(server)
    replays = {name: v for name, v in counted.items() if name.startswith("replays_total")}
    print(f"{hit} busy recognisers killed, {replays}, longest silence {max(pauses):.1f} s")
    assert texts == [alone] * SESSIONS
    assert replays["replays_total{lost}"] >= hit
    assert not replays.get("replays_total{stalled}")
