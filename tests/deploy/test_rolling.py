"""Deploys and crashes behind the real HAProxy, seen by twenty people who speak all the while.

Two server processes whose text is a function of the audio are behind the proxy of `config/`. Each
is restarted in good order, then each is killed and started anew. The clients are our library with
its default of coming back. No word of anybody may be missing, doubled or wrong.
"""

from __future__ import annotations

import signal
from pathlib import Path

import attrs
import trio

from tests.chaos import real_engine
from tests.chaos.real_harness import assert_no_errors
from tests.client.speaking import Speaker
from tests.deploy.balancer import Balancer, free_port, haproxy
from tests.deploy.tools import program
from tests.server.server_process import ServerProcess, server_process
from tests.server.wire_helpers import HOST
from voxtral_actors.client import Reconnect
from voxtral_actors.client.errors import ClientError, ConnectFailed

SPEAKERS = 20
PACE_S = 0.04
FRAMES = 40
DRAIN_S = 20
"""Of which five seconds are before anything is finalised: an utterance takes two."""
LIMIT_S = 150
"""A hang, and not a promise: it takes half a minute, most of which HAProxy waits between looks."""


@attrs.define
class Replica:
    """One server behind the proxy, over its lives; always at the same port."""

    name: str
    env: dict[str, str]
    port: int = attrs.field(factory=free_port)
    server: ServerProcess = attrs.field(init=False)

    async def live(self, *, task_status: trio.TaskStatus[None]) -> None:
        """One life, from its readiness to its end."""
        async with server_process(VOXTRAL_PORT=str(self.port), **self.env) as self.server:
            await self.server.said("engine.ready")
            task_status.started()
            await self.server.exit_status()

    async def restart(
        self, how: signal.Signals, nursery: trio.Nursery, balancer: Balancer
    ) -> tuple[int, ServerProcess]:
        """End this life and begin another; returns how the old one ended."""
        old, seen = self.server, len(balancer.log)
        old.signal(how)
        status = await old.exit_status()
        await balancer.said(f"{self.name} is DOWN", seen)
        await nursery.start(self.live)
        await balancer.said(f"{self.name} is UP", seen)
        return status, old


async def test_p16_restarts_and_crashes_behind_haproxy_cost_no_word(tmp_path: Path) -> None:
    program("haproxy")
    env = {
        "VOXTRAL_ENGINE": "scripted",
        "PYTHONPATH": real_engine.path(tmp_path),
        "MAX_CONCURRENT_CONNECTIONS": "50",
        "VOXTRAL_DRAIN_TIMEOUT_S": str(DRAIN_S),
    }
    replicas = [Replica("replica1", env), Replica("replica2", env)]
    troubles: list[ClientError] = []
    policy = Reconnect(notify=lambda error, _: troubles.append(error))
    speakers = [Speaker(1000 * number, policy, PACE_S) for number in range(SPEAKERS)]
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            for replica in replicas:
                await nursery.start(replica.live)
            async with haproxy(tmp_path, *[replica.port for replica in replicas]) as balancer:
                stop, url = trio.Event(), f"ws://{HOST}:{balancer.port}/ws"
                async with trio.open_nursery() as crowd:
                    for speaker in speakers:
                        crowd.start_soon(speaker.run, url, stop, FRAMES)
                    for replica in replicas:
                        status, old = await replica.restart(signal.SIGTERM, nursery, balancer)
                        assert status == 0
                        assert_no_errors(old)
                    for replica in replicas:
                        status, _ = await replica.restart(signal.SIGKILL, nursery, balancer)
                        assert status == -signal.SIGKILL
                    stop.set()
            nursery.cancel_scope.cancel()

    for speaker in speakers:
        # Two or more by the moments at which it was just between two connections.
        speaker.assert_heard_rightly(reconnects=2)
    # There always was a replica: whoever lost one found the other at once.
    assert not [error for error in troubles if isinstance(error, ConnectFailed)], troubles
