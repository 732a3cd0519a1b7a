"""Frames made by hand, what must come back for them, and the session in which both happen.

The server does not echo. What stands in for an echo is the command `ping`: its `request_id` may be
any text of up to 256 characters and comes back in the `pong`, and white space behind its JSON makes
the frame as large as a test wants it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import attrs
import trio

from tests.server.harness import serving, until
from tests.server.wire_client import SESSION, Client, parse
from tests.server.wire_helpers import CLOSE, PONG, TEXT, frame
from voxtral_actors.protocol.events import Error

CONTINUATION = 0
LIMIT = 70_000
"""WS_MAX_MESSAGE_BYTES here: just above the largest frame whose length fits into 16 bits."""

OCTETS_UP_TO = 700
"""What is not longer than this is also sent octet by octet."""

_ENDINGS = {None: "client_left", 1009: "message_too_big"}

Heard: TypeAlias = str | tuple[int, bytes]
"""An event as "type request_id" or "error reason_code", a control frame as it is."""


@attrs.frozen
class Case:
    """What a client sends, and what it must get for it."""

    sent: bytes
    heard: tuple[Heard, ...] = ()
    then: bytes = b""
    """Sent once `heard` has been heard: what comes before a broken frame may be lost with it."""
    code: int | None = None
    """The server fails the connection with this code; None: it goes on as if nothing was."""


def ping_command(request_id: str = "echo", size: int = 0) -> bytes:
    """A text message that is answered by `pong`; at least `size` octets long."""
    message = {"type": "ping", "session_id": SESSION, "request_id": request_id}
    return json.dumps(message, ensure_ascii=False).encode().ljust(size)


def ping_text(request_id: str = "echo", size: int = 0) -> bytes:
    return frame(TEXT, ping_command(request_id, size))


def fragments(opcode: int, *parts: bytes) -> list[bytes]:
    """One message as so many frames."""
    last = len(parts) - 1
    return [
        frame(CONTINUATION if number else opcode, part, fin=number == last)
        for number, part in enumerate(parts)
    ]


def masked(opcode: int, payload: bytes, key: bytes) -> bytes:
    """A frame with a mask that changes something."""
    head = frame(opcode, payload)[: -len(payload) - len(key)]
    return head + key + bytes(octet ^ key[at % 4] for at, octet in enumerate(payload))


def unmasked(opcode: int, payload: bytes = b"") -> bytes:
    """A frame as only a server may send it."""
    assert len(payload) < 126
    return struct.pack("!BB", 0x80 | opcode, len(payload)) + payload


@asynccontextmanager
async def session() -> AsyncIterator[Client]:
    """A session with the whole server, beside another one that speaks and must not notice."""
    with trio.fail_after(10):
        async with (
            serving(WS_MAX_MESSAGE_BYTES=str(LIMIT)) as server,
            server.bystander(),
            server.session() as client,
        ):
            yield client


async def check(case: Case) -> None:
    """Play a case, and if it is short, once more with a segment for each octet."""
    with trio.fail_after(20):
        async with serving(WS_MAX_MESSAGE_BYTES=str(LIMIT)) as server, server.bystander():
            ways = (False, True) if len(case.sent + case.then) <= OCTETS_UP_TO else (False,)
            for octets in ways:
                async with server.session() as client:
                    await _play(case, client, octets=octets)
            expected = {_ENDINGS.get(case.code, "protocol_error"): len(ways)}
            ended = server.running.listener.statistics
            await until(lambda: ended().ended == expected, "the listener calls it something else")


async def _play(case: Case, client: Client, *, octets: bool = False) -> None:
    await _send(client, case.sent, octets=octets)
    for expected in case.heard:
        assert await hear(client) == expected
    await _send(client, case.then, octets=octets)
    if case.code is None:
        await client.alive()
    else:
        await failed(client, case.code)


async def _send(client: Client, data: bytes, *, octets: bool) -> None:
    step = 1 if octets else max(len(data), 1)
    for at in range(0, len(data), step):
        await client.raw.send(data[at : at + step])


async def hear(client: Client) -> Heard:
    """The next frame, pings of the server included."""
    opcode, payload = await client.raw.frame(skip=())
    if opcode != TEXT:
        return opcode, payload
    event = parse(payload)
    detail = event.reason_code if isinstance(event, Error) else event.request_id
    return f"{event.TYPE} {detail}"


async def failed(client: Client, code: int) -> None:
    """The server's Close comes next, with this code, then its EOF; nothing is reset."""
    opcode, payload = await client.raw.frame(skip=())
    assert opcode == CLOSE
    assert struct.unpack("!H", payload[:2]) == (code,)
    assert len(payload[2:].decode()) <= 123
    await client.raw.send(frame(CLOSE, payload[:2]))
    assert await client.raw.rest() == b""


def pong(payload: bytes = b"") -> Heard:
    return PONG, payload
