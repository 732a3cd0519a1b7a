"""How one session speaks to a server: our `/ws` through the package's own client, or vLLM's
`/v1/realtime`.

Both give the text back with the position in the audio up to which it has been heard. Our deltas
carry it. vLLM's carry nothing, but there is one for each step of the model, so it follows from
their number.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import attrs
import pybase64
import trio_websocket

from voxtral_actors.client import connect
from voxtral_actors.client.utterance import Utterance
from voxtral_actors.protocol.events import Delta, Done

STEP_S = 0.08
MODEL = "bench"
"""The name under which both servers serve the model."""


@attrs.frozen
class Target:
    """A server and how to speak to it."""

    url: str
    dialect: str = "ws"
    """`ws` is ours, `realtime` vLLM's."""
    binary: bool = True
    """Audio in binary frames; else as base64 in text, which is all that `realtime` knows."""
    api_key: str | None = None
    first_s: float = 0.56
    """`realtime`: the audio that the first delta stands for, the model's delay and one step."""


class FailedError(Exception):
    """The server ended an utterance otherwise than with its text; says how."""


class Voice(Protocol):
    """One utterance."""

    async def send(self, chunk: bytes) -> None: ...

    async def finish(self) -> None: ...

    def heard(self) -> AsyncIterator[tuple[float, str]]:
        """(seconds of audio, new text) for each delta, until the text is complete.

        Raises:
            FailedError: it does not get complete.
        """


class Line(Protocol):
    """One connection."""

    def speak(self) -> Any:
        """A `Voice`, with `async with`: leaving it early drops the utterance."""


@asynccontextmanager
async def dial(target: Target) -> AsyncIterator[Line]:
    """Open a connection, up to the server's word that it may speak."""
    if target.dialect == "ws":
        async with connect(
            target.url,
            api_key=target.api_key,
            binary=target.binary,
            connect_timeout=60,
            reconnect=None,  # a lost connection is a failure of the run
        ) as session:
            yield _OurLine(session)
    else:
        headers = [(b"authorization", f"Bearer {target.api_key}".encode())]
        async with trio_websocket.open_websocket_url(
            target.url, extra_headers=headers if target.api_key else []
        ) as socket:
            line = _RealtimeLine(socket, target.first_s)
            await line.begin()
            yield line


@attrs.frozen
class _OurLine:
    session: Any

    @asynccontextmanager
    async def speak(self) -> AsyncIterator[Voice]:
        async with self.session.utterance() as utterance:
            yield _OurVoice(utterance)


@attrs.frozen
class _OurVoice:
    utterance: Utterance

    async def send(self, chunk: bytes) -> None:
        await self.utterance.send(chunk)

    async def finish(self) -> None:
        await self.utterance.finish()

    async def heard(self) -> AsyncIterator[tuple[float, str]]:
        async for event in self.utterance:
            match event:
                case Delta(delta=text, audio_ms=audio_ms):
                    yield audio_ms / 1000, text
                case Done():
                    return
                case other:
                    code = getattr(other, "reason_code", None) or getattr(other, "reason", "")
                    raise FailedError(f"{type(other).__name__.lower()}: {code}")


class _RealtimeLine:
    """vLLM's dialect on a plain WebSocket; one utterance at a time, as its server has it."""

    def __init__(self, socket: trio_websocket.WebSocketConnection, first_s: float) -> None:
        self.socket = socket
        self.first_s = first_s

    async def begin(self) -> None:
        created = await self.receive()
        if created["type"] != "session.created":
            raise FailedError(f"{created['type']} instead of session.created")
        await self.send(type="session.update", model=MODEL)

    async def send(self, **message: object) -> None:
        await self.socket.send_message(json.dumps(message))

    async def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.socket.get_message())
        return message

    @asynccontextmanager
    async def speak(self) -> AsyncIterator[Voice]:
        await self.send(type="input_audio_buffer.commit", final=False)
        yield _RealtimeVoice(self)


@attrs.frozen
class _RealtimeVoice:
    line: _RealtimeLine

    async def send(self, chunk: bytes) -> None:
        audio = pybase64.b64encode_as_string(chunk)
        await self.line.send(type="input_audio_buffer.append", audio=audio)

    async def finish(self) -> None:
        await self.line.send(type="input_audio_buffer.commit", final=True)

    async def heard(self) -> AsyncIterator[tuple[float, str]]:
        steps = 0
        while True:
            message = await self.line.receive()
            match message["type"]:
                case "transcription.delta":
                    yield self.line.first_s + steps * STEP_S, message["delta"]
                    steps += 1
                case "transcription.done":
                    return
                case other:
                    raise FailedError(f"{other}: {message.get('code')}")
