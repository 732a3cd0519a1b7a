"""Whenever the caller is cancelled: it is over soon, bare, and nothing is left open."""

from __future__ import annotations

import pytest
import trio

from tests.client.network import URL, replicas
from tests.client.speaking import dies_after, speak
from tests.client.stub import polite, serving
from voxtral_actors.client import Session, connect

LIMIT_S = 60
SECOND = bytes(32_000)


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope at the n-th step of any task of the run."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def test_cancelled_at_every_step() -> None:
    sessions: list[Session] = []
    step = 0
    finished = False  # before the step came
    with trio.fail_after(LIMIT_S):
        while not finished:
            step += 1
            async with serving(polite) as stub:
                with trio.CancelScope() as scope:
                    instrument = CancelAtStep(scope, step)
                    trio.lowlevel.add_instrument(instrument)
                    finished = await _whole_conversation(stub.url, sessions)
                trio.lowlevel.remove_instrument(instrument)
                finished = finished and instrument.left > 0
                for peer in stub.peers:
                    await peer.left.wait()
        assert step > 40, "the cancellation never hit anything"
        assert all(session.link.ended.is_set() for session in sessions)
        assert {session.statistics().utterances for session in sessions} == {0}


async def _whole_conversation(url: str, sessions: list[Session]) -> bool:
    async with connect(url) as session:
        sessions.append(session)
        async with session.utterance() as utterance:
            await utterance.send(SECOND)
            await session.ping()
            await utterance.finish()
            assert await utterance.text() == "one two 1"
    return True


async def test_cancelled_at_every_step_of_a_reconnect(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = 0
    finished = False
    with trio.fail_after(100_000):
        while not finished:
            step += 1
            async with replicas(monkeypatch, dies_after, None, polite) as network:
                with trio.CancelScope() as scope:
                    instrument = CancelAtStep(scope, step)
                    trio.lowlevel.add_instrument(instrument)
                    begun = trio.current_time()
                    finished = await _interrupted_conversation()
                trio.lowlevel.remove_instrument(instrument)
                assert trio.current_time() - begun < 30
                finished = finished and instrument.left > 0
                for peer in network.peers:
                    await peer.left.wait()
        assert step > 100, "the cancellation never hit anything"


async def _interrupted_conversation() -> bool:
    async with connect(URL) as session, session.utterance() as utterance:
        await speak(utterance, 5)
        assert await utterance.text() == "one two 5"
    return True
