"""Connections in memory, so that a client that reconnects runs on a virtual clock.

`replicas(monkeypatch, *scripts)` lets the n-th connection be served by the n-th script, and those
after by the last one. A script that is `None` is a server that nobody reaches.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio_websocket

from tests.client.stub import Peer, Script
from voxtral_actors.client import ConnectFailed, connecting

URL = "ws://memory/ws"


class Network:
    """What was dialled, and when."""

    def __init__(self, scripts: tuple[Script | None, ...], nursery: trio.Nursery) -> None:
        self.peers: list[Peer] = []
        self.dialled_at: list[float] = []
        self._scripts = scripts
        self._nursery = nursery

    async def open(self, *_: object) -> trio.abc.Stream:
        script = self._scripts[min(len(self.dialled_at), len(self._scripts) - 1)]
        self.dialled_at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if script is None:
            raise ConnectFailed("nobody is there")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, script, theirs)
        return ours

    async def _serve(self, script: Script, stream: trio.StapledStream) -> None:  # type: ignore[type-arg]
        async with trio.open_nursery() as nursery:
            request = await trio_websocket.wrap_server_stream(nursery, stream)
            peer = Peer(request)
            self.peers.append(peer)
            peer.ws = await request.accept()
            with suppress(trio_websocket.ConnectionClosed):
                await script(peer)
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)
        peer.left.set()


@asynccontextmanager
async def replicas(
    monkeypatch: pytest.MonkeyPatch, *scripts: Script | None
) -> AsyncGenerator[Network]:
    async with trio.open_nursery() as nursery:
        network = Network(scripts, nursery)
        monkeypatch.setattr(connecting, "open_stream", network.open)
        yield network
        nursery.cancel_scope.cancel()
