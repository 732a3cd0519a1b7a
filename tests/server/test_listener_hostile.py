"""Input that has stopped, or could stop, a whole server: here it ends one connection at most.

Every case runs beside a session that echoes all the while and must not notice. The table holds the
inputs that are known to raise inside hypercorn, wsproto or quart-trio, and their neighbours.
"""

from __future__ import annotations

import pytest
import trio

from tests.server.wire_helpers import (
    BINARY,
    CLOSE,
    OPTIONS,
    PING,
    TEXT,
    Raw,
    close_payload,
    frame,
    serving,
    upgrade_request,
)

REFUSED = {
    "non-ascii Connection": upgrade_request(connection=b"Upgrade, \xff"),
    "non-ascii Connection, no upgrade": b"GET / HTTP/1.1\r\nHost: h\r\nConnection: \xff\r\n\r\n",
    "non-ascii subprotocol": upgrade_request("/ws", b"Sec-WebSocket-Protocol: caf\xc3\xa9"),
    "non-ascii extensions": upgrade_request("/ws", b"Sec-WebSocket-Extensions: \x80"),
    "non-ascii key": upgrade_request("/ws", b"Sec-WebSocket-Key: \x80"),
    "upgrade with a body": upgrade_request("/ws", b"Content-Length: 5") + b"hello",
    "upgrade with a body to come": upgrade_request("/ws", b"Content-Length: 5"),
    "upgrade, chunked": upgrade_request("/ws", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "frame with the request": upgrade_request() + frame(TEXT, b"early"),
    "junk with the request": upgrade_request("/undecided") + b"\x00" * 1000,
    "wrong version": upgrade_request().replace(b"Version: 13", b"Version: 12"),
    "HTTP/1.0 upgrade": upgrade_request().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "no key": upgrade_request().replace(b"Sec-WebSocket-Key", b"X-Key"),
    "empty path": b"GET ?a=b HTTP/1.1\r\nHost: h\r\n\r\n",
    "empty path, upgrade": upgrade_request("?a=b"),
    "authority as target": b"GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
    "absolute target without a path": b"GET http://h?x HTTP/1.1\r\nHost: h\r\n\r\n",
    "non-ascii path": b"GET /\xff\xfe HTTP/1.1\r\nHost: h\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "garbage": bytes(range(256)) + b"\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
    "endless header": b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000,
    "two lengths": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "pipelined behind the last": (
        b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
    ),
    "http/2 with prior knowledge": b"PRI * HTTP/2.0\r\nHost: h\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED.keys())
async def test_p1_a_bad_request_is_refused_and_closed(request_bytes: bytes) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.bystander():
            async with server.raw() as raw:
                await raw.send(request_bytes)
                with trio.fail_after(2):  # at once, not when the handshake is over
                    answer = await raw.rest()  # up to EOF: a reset would have raised
            assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505")), answer
            assert answer.count(b"HTTP/1.1 ") == 1
            await server.until_open(1)
            assert server.listener.statistics().failures == 0
            assert server.ended("bad_request") + server.ended("closed") == 1


SERVED = {
    "double slash": b"GET //healthz HTTP/1.1\r\nHost: h\r\n\r\n",
    "absolute target": b"GET http://h/healthz HTTP/1.1\r\nHost: h\r\n\r\n",
    "undecodable escapes": b"GET /%ff%00%2e HTTP/1.1\r\nHost: h\r\n\r\n",
    "options for everything": b"OPTIONS /healthz HTTP/1.1\r\nHost: h\r\n\r\n",
    "h2c upgrade": (
        b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
    ),
    "pipelined": b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n" * 3,
    "websocket by POST": upgrade_request("/healthz").replace(b"GET", b"POST"),
}


@pytest.mark.parametrize("request_bytes", SERVED.values(), ids=SERVED.keys())
async def test_p1_an_odd_request_is_answered_as_http_1(request_bytes: bytes) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.bystander():
            async with server.raw() as raw:
                await raw.send(request_bytes)
                status = (await raw.head()).partition(b"\r\n")[0]
            assert status.split()[1] in {b"200", b"308", b"404", b"405"}
            await server.until_open(1)
            assert server.listener.statistics().failures == 0


BREAKING = {
    "bad utf-8": (frame(TEXT, b"\xff\xfe"), 1007),
    "reserved bit": (frame(TEXT, b"x", rsv=4), 1002),
    "reserved opcode": (frame(3, b"x"), 1002),
    "bad close code": (frame(CLOSE, close_payload(999)), 1002),
    "short close": (frame(CLOSE, b"\x03"), 1002),
    "long ping": (frame(PING, b"x" * 126), 1002),
    "split ping": (frame(PING, b"x", fin=False), 1002),
    "continuation of nothing": (frame(0, b"x"), 1002),
    "unmasked": (b"\x81\x02hi", 1002),
}


@pytest.mark.parametrize(("frames", "code"), BREAKING.values(), ids=BREAKING.keys())
async def test_p1_a_broken_frame_is_answered_with_its_close_code(frames: bytes, code: int) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.bystander():
            async with server.raw() as raw:
                await raw.upgrade()
                await raw.send(frames + frame(TEXT, b"and more"))
                assert (await raw.close_frame())[0] == code
                await raw.stream.send_eof()
                await raw.rest()
            await server.until_open(1)
            assert server.ended("protocol_error") == 1
            assert server.seen.endings == ["protocol_error"]
            assert server.listener.statistics().failures == 0


async def oversize_then_text(raw: Raw) -> None:
    big = frame(BINARY, b"x" * (OPTIONS.max_message_bytes + 1))
    await raw.send(big + frame(TEXT, b"text after it"))


async def oversize_in_parts(raw: Raw) -> None:
    await raw.send(frame(BINARY, b"x" * 40_000, fin=False) + frame(0, b"x" * 40_000, fin=False))


async def oversize_in_bytes_only(raw: Raw) -> None:
    await raw.send(frame(TEXT, "é".encode() * (OPTIONS.max_message_bytes // 2 + 1)))


@pytest.mark.parametrize("send", [oversize_then_text, oversize_in_parts, oversize_in_bytes_only])
async def test_p9_oversize_is_closed_1009_and_the_app_hears_it(send: object) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.bystander():
            async with server.raw() as raw:
                await raw.upgrade()
                await send(raw)  # type: ignore[operator]
                assert await raw.close_frame() == (1009, b"message_too_big")
                while not server.seen.endings:  # though the peer has neither answered nor left
                    await trio.lowlevel.checkpoint()
                assert server.seen.endings == ["message_too_big"]
            await server.until_open(1)
            assert server.ended("message_too_big") == 1
            assert all(not isinstance(m, str) or "after it" not in m for m in server.seen.messages)


async def test_p9_a_message_of_exactly_the_limit_passes() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.socket() as peer:
            for message in (
                b"x" * OPTIONS.max_message_bytes,
                "é" * (OPTIONS.max_message_bytes // 2),
            ):
                await peer.send_message(message)
                assert await peer.get_message() == message


@pytest.mark.parametrize(
    "data", [frame(PING, b"x"), frame(TEXT, b"x"), frame(BINARY), b"\xff" * 99]
)
async def test_p2_anything_after_our_close_never_raises(data: bytes) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.bystander():
            async with server.raw() as raw:
                await raw.upgrade("/close-then-stay")
                assert await raw.close_frame() == (4000, b"bye")
                await raw.send(data + frame(CLOSE, close_payload(4000)) + data)
                await raw.gone()
            await server.until_open(1)
            assert server.listener.statistics().failures == 0
            assert len(server.seen.endings) == 1


async def test_data_after_the_peers_close_is_dropped() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.bystander():
            async with server.raw() as raw:
                await raw.upgrade()
                await raw.send(
                    frame(CLOSE, close_payload(4321)) + frame(TEXT, b"late") + b"\xff" * 50
                )
                assert (await raw.close_frame())[0] == 4321
                await raw.gone()
            await server.until_open(1)
            assert "late" not in server.seen.messages
            assert server.ended("closed") == 1


async def test_a_handler_that_raises_ends_its_own_request_only() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.bystander():
            async with server.raw() as raw:
                for path, status in (("/raises", b" 500 "), ("/healthz", b" 200 ")):
                    await raw.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                    head = await raw.head()
                    assert status in head
                    await raw.take(int(head.lower().split(b"content-length: ")[1].split()[0]))
            async with server.raw() as raw:
                await raw.upgrade("/fails")
                await raw.close_frame()  # quart chooses the code


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_an_empty_message_is_a_message(opcode: int) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.raw() as raw:
            await raw.upgrade()
            await raw.send(frame(opcode) + frame(opcode, b"x"))
            assert (await raw.frame())[1] == b""
            assert await raw.frame() == (opcode, b"x")


async def test_a_raw_app_that_raises_is_contained_and_counted() -> None:
    async def app(scope: dict[str, object], _receive: object, _send: object) -> None:
        raise RuntimeError(scope["path"])

    with trio.fail_after(10):
        async with serving(app=app) as server:
            for request in (upgrade_request(), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"):
                async with server.raw() as raw:
                    await raw.send(request)
                    assert b" 500 " in await raw.head()
            assert server.listener.statistics().failures == 2


async def test_a_failure_inside_the_protocol_stack_is_contained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from voxtral_actors.server import wire

    async def broken(*_: object) -> None:
        raise TypeError("a bug in a library")

    with trio.fail_after(10):
        async with serving() as server, server.bystander():
            async with server.raw() as raw:
                with monkeypatch.context() as patch:
                    patch.setattr(wire._Protocol, "_create_stream", broken)
                    await raw.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                    await raw.gone()
            await server.until_open(1)
            assert server.listener.statistics().failures == 1
            assert server.ended("failed") == 1


async def test_no_compression_is_negotiated() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.raw() as raw:
            offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
            head = await raw.upgrade("/ws", offer)
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"extensions" not in head.lower()
            assert b"server:" not in head.lower()
            await raw.send(frame(TEXT, b"plain"))
            assert await raw.frame() == (TEXT, b"plain")


async def test_a_refusal_by_the_app_is_plain_http() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.raw() as raw:
            await raw.send(upgrade_request("/refuses"))
            answer = await raw.rest()
            assert answer.startswith(b"HTTP/1.1 401 ")
            assert answer.endswith(b"no key")


async def test_a_reset_is_just_a_client_that_left() -> None:
    with trio.fail_after(10):
        async with serving() as server, server.bystander():
            for _ in range(20):
                async with server.raw() as raw:
                    await raw.upgrade()
                    await raw.send(frame(TEXT, b"x") * 50)
                    assert isinstance(raw.stream, trio.SocketStream)
                    raw.stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: RST
            await server.until_open(1)
            assert server.ended("client_left") == 20
            assert server.listener.statistics().failures == 0
