"""RFC 6455 section 4.2: which requests open a WebSocket, and what all others are answered.

Header fields are those of HTTP: their names and some values in any case, and a list may stand in
one line or in several (section 4.2.1, 11.3.4, and RFC 9110 section 5.3).
"""

from __future__ import annotations

import base64
import hashlib

import pytest
import trio

from tests.chaos.frames import hear, ping_text
from tests.server.harness import serving
from tests.server.wire_client import KEY, Client
from tests.server.wire_helpers import KEY as NONCE
from tests.server.wire_helpers import Raw, upgrade_request

PATH = f"/ws?api_key={KEY}"
GOOD = upgrade_request(PATH)
UPGRADE, CONNECTION = b"Upgrade: websocket", b"Connection: Upgrade"
VERSION, NONCE_LINE = b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + NONCE


def accepts(nonce: bytes) -> str:
    """Section 4.2.2, item 5.4."""
    joined = nonce + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(joined).digest()).decode()  # noqa: S324


def offering(*lines: bytes) -> bytes:
    return upgrade_request(PATH, *lines)


async def answer(raw: Raw) -> tuple[int, dict[str, list[str]]]:
    first, *lines = (await raw.head()).decode().removesuffix("\r\n\r\n").split("\r\n")
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        fields.setdefault(name.lower(), []).append(value)
    return int(first.split()[1]), fields


def in_lower_case(request_bytes: bytes) -> bytes:
    first, *lines = request_bytes.split(b"\r\n")
    fields = [line.partition(b": ") for line in lines]
    return b"\r\n".join([first, *(name.lower() + sep + value for name, sep, value in fields)])


PROTOCOLS = b"Sec-WebSocket-Protocol: "
ACCEPTED: dict[str, tuple[bytes, str | None]] = {
    # The request, and the subprotocol that is chosen.
    "as in section 1.2": (GOOD, None),
    "names in lower case": (in_lower_case(GOOD), None),
    "values in upper case": (
        GOOD.replace(UPGRADE, UPGRADE.upper()).replace(CONNECTION, CONNECTION.upper()),
        None,
    ),
    "connection is a list": (GOOD.replace(b": Upgrade", b": keep-alive,Upgrade ,  x"), None),
    "connection in two lines": (GOOD.replace(CONNECTION, CONNECTION + b"\r\nConnection: x"), None),
    "white space around values": (GOOD.replace(VERSION, b"Sec-WebSocket-Version: \t13 \t"), None),
    "unknown fields": (offering(b"X-One: 1", b"Cookie: a=b", b"Sec-WebSocket-Hat: red"), None),
    "empty extensions": (offering(b"Sec-WebSocket-Extensions: "), None),
    "unknown extension": (offering(b"Sec-WebSocket-Extensions: bbf-usp-protocol; a=1"), None),
    "our subprotocol": (offering(PROTOCOLS + b"voxtral.v1"), "voxtral.v1"),
    "ours among others": (offering(PROTOCOLS + b"chat, voxtral.v1,soap"), "voxtral.v1"),
    "subprotocols in lines": (
        offering(PROTOCOLS + b"voxtral.v1", PROTOCOLS + b"chat, soap"),
        "voxtral.v1",
    ),
    "none of ours": (offering(PROTOCOLS + b"chat, Voxtral.V1"), None),
    "another nonce": (GOOD.replace(NONCE, b"AQIDBAUGBwgJCgsMDQ4PEA=="), None),
    "no blank before a value": (GOOD.replace(b": ", b":"), None),
}


@pytest.mark.parametrize(("request_bytes", "chosen"), ACCEPTED.values(), ids=ACCEPTED.keys())
async def test_4_2_2_a_good_handshake_opens(request_bytes: bytes, chosen: str | None) -> None:
    """101, the proof that the key was read, the subprotocol that was chosen, and nothing else."""
    nonce = NONCE if NONCE in request_bytes else b"AQIDBAUGBwgJCgsMDQ4PEA=="
    with trio.fail_after(10):
        async with serving() as served, served.bystander():
            for step in (len(request_bytes), 1):
                async with await served.stream() as stream:
                    raw = Raw(stream)
                    for at in range(0, len(request_bytes), step):
                        await raw.send(request_bytes[at : at + step])
                    status, fields = await answer(raw)
                    assert status == 101
                    assert fields.pop("sec-websocket-accept") == [accepts(nonce)]
                    assert fields.pop("upgrade")[0].lower() == "websocket"
                    assert fields.pop("connection")[0].lower() == "upgrade"
                    assert fields.pop("sec-websocket-protocol", [None]) == [chosen]
                    assert fields.keys() <= {"date"}
                    client = Client(raw, None)
                    assert await hear(client) == "session.created connection"
                    await raw.send(ping_text())
                    assert await hear(client) == "pong echo"


def without(line: bytes) -> bytes:
    return GOOD.replace(line + b"\r\n", b"")


def with_nonce(*nonces: bytes) -> bytes:
    lines = [b"Sec-WebSocket-Key: " + nonce for nonce in nonces]
    return GOOD.replace(NONCE_LINE, b"\r\n".join(lines))


REFUSED: dict[str, tuple[bytes, int]] = {
    "version 12": (GOOD.replace(b"Version: 13", b"Version: 12"), 426),
    "version 14": (GOOD.replace(b"Version: 13", b"Version: 14"), 426),
    "version 013": (GOOD.replace(b"Version: 13", b"Version: 013"), 426),
    "versions 8 and 13": (GOOD.replace(b"Version: 13", b"Version: 8, 13"), 426),
    "two lines of versions": (GOOD.replace(VERSION, VERSION + b"\r\n" + VERSION), 426),
    "no version": (without(VERSION), 426),
    "no key": (without(NONCE_LINE), 400),
    "empty key": (with_nonce(b""), 400),
    "key of 15 octets": (with_nonce(base64.b64encode(bytes(15))), 400),
    "key of 17 octets": (with_nonce(base64.b64encode(bytes(17))), 400),
    "key without padding": (with_nonce(NONCE.rstrip(b"=")), 400),
    "key is no base64": (with_nonce(b"@" * 22 + b"=="), 400),
    "two keys": (with_nonce(NONCE, NONCE), 400),
    "no upgrade": (without(UPGRADE), 400),
    "upgrade to something else": (GOOD.replace(UPGRADE, b"Upgrade: websockets"), 400),
    "upgrade to several": (GOOD.replace(UPGRADE, b"Upgrade: websocket, h2c"), 400),
    "no connection": (without(CONNECTION), 400),
    "connection says another thing": (GOOD.replace(CONNECTION, b"Connection: upgraded"), 400),
    "method is POST": (GOOD.replace(b"GET", b"POST"), 405),
    "method is HEAD": (GOOD.replace(b"GET", b"HEAD"), 400),
    "no such path": (GOOD.replace(b"/ws?", b"/socket?"), 404),
    "HTTP/1.0": (GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    "HTTP/2.0": (GOOD.replace(b"HTTP/1.1", b"HTTP/2.0"), 505),
}


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_4_2_1_any_other_request_is_an_http_error(request_bytes: bytes, status: int) -> None:
    """ "The server MUST stop processing": no 101, and for a version that is not 13 the answer says
    which one is understood (section 4.2.2, item 4; section 4.4)."""
    with trio.fail_after(10):
        async with serving() as served, served.bystander(), await served.stream() as stream:
            raw = Raw(stream)
            await raw.send(request_bytes)
            got, fields = await answer(raw)
            assert got == status
            versions = ["13"] if status == 426 else None
            assert fields.get("sec-websocket-version") == versions
            assert "sec-websocket-accept" not in fields
