"""A client that speaks the wire strictly: for every byte there is a line in the test.

A frame must be the envelope and nothing else, and its payload must fill exactly the attributes of
the event. Nothing runs in the background, so a test says when it reads and when it does not.
"""

from __future__ import annotations

import json
import socket
import struct
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import TypeVar

import attrs
import trio

from tests.server.wire_helpers import BINARY, CLOSE, HOST, TEXT, Raw, frame
from voxtral_actors.protocol.events import (
    EVENT_CLASSES,
    Delta,
    Done,
    Error,
    Event,
    SessionCreated,
    Usage,
)

KEY = "open-sesame-for-tests"
SESSION = "ses-1"
CHUNK = 2560
EVENTS: dict[str, type[Event]] = {cls.TYPE: cls for cls in EVENT_CLASSES}
EMPTY: Mapping[str, str] = {}

LINGER_ZERO = socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)

E = TypeVar("E", bound=Event)


def parse(payload: bytes) -> Event:
    """A message of the server as the event that it is; fails on anything more or less."""
    message = json.loads(payload)
    assert message.keys() == {"type", "session_id", "request_id", "payload"}
    values = dict(message["payload"])
    if "usage" in values:
        values["usage"] = Usage(**values["usage"])
    cls = EVENTS[message["type"]]
    assert values.keys() == {f.name for f in attrs.fields(cls)} - {"session_id", "request_id"}
    return cls(session_id=message["session_id"], request_id=message["request_id"], **values)


class Client:
    """One WebSocket. `say` makes envelopes; `hear` takes the next event, which must be one."""

    def __init__(self, raw: Raw, subprotocol: str | None) -> None:
        self.raw = raw
        self.subprotocol = subprotocol
        self.created: SessionCreated | None = None

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self.raw.send(frame(TEXT, message.encode()))
        else:
            await self.raw.send(frame(BINARY, message))

    async def say(self, what: str, request_id: str = "r1", **payload: object) -> None:
        await self.send(envelope(what, request_id, payload=payload))

    async def start(self, request_id: str = "r1") -> None:
        await self.say("input_audio_buffer.commit", request_id)

    async def finish(self, request_id: str = "r1") -> None:
        await self.say("input_audio_buffer.commit", request_id, final=True)

    async def finish_whole(self, pcm: bytes, *, audio_s: float) -> None:
        """Say the rest of the utterance and end it: all `audio_s` seconds of it must be done."""
        await self.send(pcm)
        await self.finish()
        done = await self.hear_past_deltas(Done)
        assert done.usage.audio_seconds == audio_s

    async def append(self, pcm: bytes, request_id: str = "r1") -> None:
        """Audio as base64; binary frames go through `send`."""
        audio = b64encode(pcm).decode()
        await self.say("input_audio_buffer.append", request_id, audio=audio)

    async def utter(self, pcm: bytes, request_id: str = "r1", *, binary: bool = True) -> None:
        """A whole utterance, in chunks of 80 ms."""
        await self.start(request_id)
        for start in range(0, len(pcm), CHUNK):
            chunk = pcm[start : start + CHUNK]
            await (self.send(chunk) if binary else self.append(chunk, request_id))
        await self.finish(request_id)

    async def next(self) -> Event:
        opcode, payload = await self.raw.frame()
        assert opcode == TEXT, (opcode, payload)
        return parse(payload)

    async def hear(self, kind: type[E]) -> E:
        event = await self.next()
        assert isinstance(event, kind), event
        return event

    async def hear_past_deltas(self, kind: type[E] | tuple[type[E], ...]) -> E:
        while isinstance(event := await self.next(), Delta):
            pass
        assert isinstance(event, kind), event
        return event

    async def refused(self, code: str, reason_code: str) -> Error:
        """The next event, which must be this error."""
        error = await self.hear(Error)
        assert (error.code, error.reason_code) == (code, reason_code), error
        return error

    async def transcript(self, request_id: str) -> tuple[str, Event]:
        """The joined deltas of an utterance, and the event that ended it."""
        text = ""
        while True:
            event = await self.next()
            assert event.request_id == request_id, event
            if not isinstance(event, Delta):
                return text, event
            text += event.delta

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the server's Close frame, which must come next, and its EOF."""
        opcode, payload = await self.raw.frame()
        assert opcode == CLOSE, payload
        await self.raw.send(frame(CLOSE, payload[:2]))
        await self.raw.gone()
        return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    async def alive(self, _pings: Iterable[int] = count(1)) -> None:
        """The connection works: a ping is answered next."""
        name = f"ping-{next(iter(_pings))}"
        await self.say("ping", name)
        event = await self.next()
        assert (type(event).TYPE, event.request_id) == ("pong", name), event

    async def close(self, code: int = 1000) -> None:
        """Close in good order; returns when the server has ended the connection."""
        await self.raw.send(frame(CLOSE, struct.pack("!H", code)))
        await self.raw.gone()

    async def reset(self) -> None:
        """Hang up without a word: the server gets a RST."""
        stream = self.raw.stream
        assert isinstance(stream, trio.SocketStream)
        stream.setsockopt(*LINGER_ZERO)
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def websocket(
    port: int, target: str, subprotocols: Iterable[str] = (), headers: Mapping[str, str] = EMPTY
) -> AsyncIterator[Client]:
    """A WebSocket with nothing read from it yet; the socket is closed in the end."""
    lines = [f"{name.replace('_', '-')}: {value}".encode() for name, value in headers.items()]
    if offered := ", ".join(subprotocols):
        lines.append(b"Sec-WebSocket-Protocol: " + offered.encode())
    async with await trio.open_tcp_stream(HOST, port) as stream:
        raw = Raw(stream)
        status, *fields = (await raw.upgrade(target, *lines)).decode().lower().split("\r\n")
        assert status.startswith("http/1.1 101 "), status
        chosen = dict(field.split(": ", 1) for field in fields if field)
        yield Client(raw, chosen.get("sec-websocket-protocol"))


def envelope(
    what: object, request_id: object = "r1", session_id: object = SESSION, **rest: object
) -> str:
    return json.dumps({"type": what, "session_id": session_id, "request_id": request_id, **rest})


@asynccontextmanager
async def deaf_client(port: int, key: str = KEY) -> AsyncIterator[None]:
    """A session whose client asks and asks and reads no answer, until nothing fits any more."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect((HOST, port))
    async with trio.SocketStream(sock) as stream:
        await Raw(stream).upgrade(f"/ws?api_key={key}")
        pings = frame(TEXT, envelope("ping", "x" * 256).encode()) * 100
        with trio.CancelScope() as stuck, suppress(trio.BrokenResourceError):
            while True:
                stuck.deadline = trio.current_time() + 0.2
                await stream.send_all(pings)
        yield
