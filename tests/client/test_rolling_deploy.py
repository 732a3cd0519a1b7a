"""A deploy of two replicas behind a proxy, seen by clients that speak all the while.

Two whole servers run here, each with an engine whose text is a function of the audio alone. A tiny
proxy forwards to one of them and can be pointed at the other. One replica is drained, the other one
is cut off by resets in the middle of utterances; no word may be missing or doubled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from tests.client.speaking import Speaker
from tests.engine.script import Part
from tests.engine.scripted import Script, speech
from tests.server.harness import serving, until
from tests.server.wire_client import KEY, LINGER_ZERO
from voxtral_actors.client import Reconnect, connect

LIMIT_S = 40
SOON = Reconnect(first_pause_s=0.1)


@attrs.define
class Proxy:
    """Forwards TCP to `target`, and can reset all that it has open."""

    target: int
    port: int = 0
    _open: set[trio.SocketStream] = attrs.field(factory=set)

    async def forward(self, client: trio.SocketStream) -> None:
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self.target)
        except OSError:
            await client.aclose()
            return
        pair = {client, server}
        self._open |= pair
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, client, server, nursery.cancel_scope)
                nursery.start_soon(self._pump, server, client, nursery.cancel_scope)
        finally:
            self._open -= pair
            for stream in pair:
                stream.socket.close()

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()

    def reset(self) -> None:
        for stream in list(self._open):
            stream.socket.setsockopt(*LINGER_ZERO)
            stream.socket.close()


@asynccontextmanager
async def proxy(target: int) -> AsyncGenerator[Proxy]:
    made = Proxy(target)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        made.port = listeners[0].socket.getsockname()[1]
        # The kernel listens already: who connects before the task runs only waits.
        nursery.start_soon(trio.serve_listeners, made.forward, listeners)  # noqa: ASYNC113
        yield made
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("frames", [20, 120], ids=["short utterances", "longer than the drain"])
async def test_p16_a_rolling_deploy_loses_nothing(frames: int) -> None:
    """Utterances that end within the drain finish there; longer ones are handed over."""
    script = Script(slots=16)
    drained = {"VOXTRAL_DRAIN_TIMEOUT_S": "1", "WS_CLOSE_GRACE_S": "0.5"}
    speakers = [Speaker(100 * number, SOON) for number in range(3)]
    with trio.fail_after(LIMIT_S):
        async with (
            serving(script, **drained) as old,
            serving(script) as new,
            proxy(old.port) as door,
            trio.open_nursery() as nursery,
        ):
            stop = trio.Event()
            url = f"ws://127.0.0.1:{door.port}/ws"
            for speaker in speakers:
                nursery.start_soon(speaker.run, url, stop, frames)
            await until(lambda: len(old.scripted.streams) >= 3, "all speak")

            door.target = new.port
            old.running.stop.set()
            await old.returned.wait()
            await until(lambda: len(new.scripted.streams) >= 6, "all go on at the new one")

            door.reset()
            await until(lambda: len(new.scripted.streams) >= 12, "all go on after the reset")
            stop.set()

    for speaker in speakers:
        speaker.assert_heard_rightly(reconnects=2)


@pytest.mark.parametrize("piece", [2560, 3202, 32_000])
async def test_p16_a_hand_over_in_the_middle_gives_each_byte_to_one_server(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the old server stops to take audio, in the middle of a frame of its engine too."""
    heard: dict[Part, bytearray] = {}
    feed = Part.feed

    def listen(part: Part, pcm: bytes) -> None:
        heard.setdefault(part, bytearray()).extend(pcm)
        feed(part, pcm)

    monkeypatch.setattr(Part, "feed", listen)
    audio = speech(9.6)
    drained = {"VOXTRAL_DRAIN_TIMEOUT_S": "1", "WS_CLOSE_GRACE_S": "0.5"}
    with trio.fail_after(LIMIT_S):
        async with (
            serving(Script(), **drained) as old,
            serving(Script()) as new,
            proxy(old.port) as door,
            connect(f"ws://127.0.0.1:{door.port}/ws", api_key=KEY, reconnect=SOON) as session,
            session.utterance() as utterance,
        ):
            for start in range(0, len(audio) // 4, piece):
                await utterance.send(audio[start : start + piece])
            sent = start + piece
            await until(lambda: bool(heard), "the old one hears")
            door.target = new.port
            old.running.stop.set()
            await old.returned.wait()
            await utterance.send(audio[sent:])
            await utterance.finish()
            await utterance.text()

    first, second = heard.values()
    assert first
    assert second
    assert first + second == audio
