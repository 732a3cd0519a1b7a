"""The whole server on a port of the loopback, real clients for it, and what it must leave behind.

`serving` runs everything but the signals: listener, admission, connections, engine actor, and the
scripted engine behind it. When its block is left, every client must be gone and the server, still
running, must hold nothing any more: no admitted connection, no engine slot, no socket.

`Client` speaks the wire strictly. A frame must be the envelope and nothing else, its payload must
fill exactly the event's attributes, and `closed` fails if anything was left unheard.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any, TypeVar

import attrs
import trio

from tests.engine.scripted import HEALTHY, Script, Scripted, speech, transcript
from tests.server.wire_helpers import BINARY, CLOSE, TEXT, Raw, frame
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.protocol.events import (
    EVENT_CLASSES,
    Delta,
    Done,
    Error,
    Event,
    SessionCreated,
    Usage,
)
from voxtral_actors.server.admission import Admission
from voxtral_actors.server.app import Running, run
from voxtral_actors.settings import load

HOST = "127.0.0.1"
KEY = "open-sesame-for-tests"
OTHER_KEY = "the-key-before-the-rotation"
SESSION = "ses-1"
EMPTY: Mapping[str, str] = {}
EVENTS: dict[str, type[Event]] = {cls.TYPE: cls for cls in EVENT_CLASSES}

E = TypeVar("E", bound=Event)


async def until(holds: Callable[[], bool], what: str) -> None:
    """Wait, within a bound, until something is true that nobody signals."""
    with trio.move_on_after(5):
        while not holds():
            await trio.lowlevel.checkpoint()
    assert holds(), what


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
    """One WebSocket. `say` makes envelopes; `hear` takes the next event, which must be one.

    Nothing runs in the background: what is not asked for is not read.
    """

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


LINGER_ZERO = socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)


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


@attrs.frozen
class Answer:
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def request(port: int, path: str, method: str = "GET", body: bytes = b"") -> Answer:
    """One HTTP request on a connection of its own."""
    head = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{port}", "Connection: close"]
    if body:
        head.append(f"Content-Length: {len(body)}")
    async with await trio.open_tcp_stream(HOST, port) as stream:
        await stream.send_all("\r\n".join([*head, "", ""]).encode() + body)
        answer = b"".join([part async for part in stream])
    top, _, content = answer.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(first.split()[1]), fields, content)


@attrs.frozen
class Served:
    """One server that accepts connections."""

    running: Running
    engine: EngineActor
    scripted: Scripted
    returned: trio.Event
    """Set when the server has stopped by itself."""

    @property
    def port(self) -> int:
        return self.running.port

    @property
    def authority(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def admission(self) -> Admission:
        return self.running.service.admission

    @asynccontextmanager
    async def connect(
        self, query: str = "", *, subprotocols: Iterable[str] = (), **headers: str
    ) -> AsyncIterator[Client]:
        """A WebSocket, with nothing read from it yet. `X_API_Key="…"` is a header."""
        target = "/ws" + (f"?{query}" if query else "")
        async with websocket(self.port, target, subprotocols, headers) as client:
            yield client

    @asynccontextmanager
    async def session(self, **headers: str) -> AsyncIterator[Client]:
        """An admitted connection whose `session.created` has been heard."""
        async with self.connect(**{"X_API_Key": KEY, **headers}) as client:
            client.created = await client.hear(SessionCreated)
            yield client

    async def stream(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(HOST, self.port)

    @asynccontextmanager
    async def bystander(self) -> AsyncIterator[None]:
        """Another session speaks all the while, and every word must come at once and be right."""
        done = trio.Event()

        async def speak(*, task_status: trio.TaskStatus[None]) -> None:
            said = bytearray()
            await peer.start("beside")
            while not done.is_set():
                chunk = speech(0.08, seed=len(said))
                said += chunk
                await peer.send(chunk)
                if text := transcript(chunk):
                    with trio.fail_after(2):
                        assert (await peer.hear(Delta)).delta == text
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                with trio.move_on_after(0.02):  # the pace of a lively speaker
                    await done.wait()
            await peer.finish("beside")
            assert (await peer.hear(Done)).text == transcript(said)

        async with self.session() as peer, trio.open_nursery() as nursery:
            await nursery.start(speak)
            try:
                yield
            finally:
                done.set()

    async def http(self, path: str, method: str = "GET", body: bytes = b"") -> Answer:
        return await request(self.port, path, method, body)

    async def empty(self) -> None:
        """Wait until the server holds nothing for anybody."""

        def holds() -> tuple[int, int, int]:
            slots = self.engine.statistics().slots_taken
            return self.admission.open, slots, self.running.listener.statistics().open

        await until(lambda: holds() == (0, 0, 0), "open connections, engine slots, or sockets")


@asynccontextmanager
async def serving(script: Script = HEALTHY, /, **env: str) -> AsyncIterator[Served]:
    """A server with these settings, whose engine is or will be what the script says."""
    settings = load({
        "VOXTRAL_API_KEY": f"{KEY},{OTHER_KEY}",
        "MAX_CONCURRENT_CONNECTIONS": "8",
        "VOXTRAL_PORT": "0",
        **env,
    })  # fmt: skip
    scripted = Scripted(script)
    engine = EngineActor(scripted.backend)
    returned = trio.Event()

    async def serve(*, task_status: trio.TaskStatus[Running]) -> None:
        await run(settings, engine=engine, task_status=task_status)
        returned.set()

    async with trio.open_nursery() as nursery:
        running: Running = await nursery.start(serve)
        served = Served(running, engine, scripted, returned)
        if not script.start_s and not script.fail_start:
            with trio.fail_after(5):
                await engine.wait_ready()
        yield served
        if not returned.is_set():
            await served.empty()
        nursery.cancel_scope.cancel()
    assert running.listener.statistics().failures == 0, "an exception reached the listener"
