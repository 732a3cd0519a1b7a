"""Ways in which no session comes about, and deadlines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.client.stub import CREATED, KEY, Peer, polite, serving
from voxtral_actors.client import (
    ConnectFailed,
    ConnectionRefused,
    NoAnswer,
    ServerClosed,
    connect,
    limits,
)
from voxtral_actors.client.stream import Address
from voxtral_actors.protocol.closing import Close, farewell
from voxtral_actors.protocol.commands import Start

LIMIT_S = 10
REFUSALS = [Close.BAD_KEY, Close.BAD_ORIGIN, Close.AT_CAPACITY, Close.ENGINE_UNAVAILABLE]


@pytest.mark.parametrize("close", [*REFUSALS, Close.DRAINING])
async def test_a_refusal_carries_code_close_code_and_advice(close: Close) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(farewell("sess-1", "connection", close))
        await peer.close(close.spec.code, close.spec.slug)

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub:
            with pytest.raises(ConnectionRefused) as caught:
                async with connect(stub.url, api_key=KEY):
                    raise AssertionError("there is no session")
        refused = caught.value
        assert (refused.code, refused.close_code) == (close.spec.error, close.spec.code)
        assert (refused.retry, refused.retry_after) == (close.spec.retry, close.spec.retry_after_s)
        assert KEY not in repr(refused)


async def test_a_refusal_without_a_close_frame_is_a_refusal_all_the_same() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(farewell("sess-1", "connection", Close.BAD_KEY))
        await trio.sleep_forever()

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub:
            with pytest.raises(ConnectionRefused, match="authentication_failed"):
                async with connect(stub.url, connect_timeout=0.3):
                    pass


async def test_nobody_listens() -> None:
    with trio.fail_after(LIMIT_S):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        await listeners[0].aclose()
        with pytest.raises(ConnectFailed, match="Connection refused") as caught:
            async with connect(f"ws://127.0.0.1:{port}/ws?api_key=secret"):
                pass
        assert caught.value.retry
        assert "secret" not in str(caught.value)


async def _raw(answer: Callable[[trio.abc.Stream], Awaitable[None]], match: str) -> ConnectFailed:
    """What `connect` says about a TCP server that answers like that."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await answer(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(ConnectFailed, match=match) as caught:
            async with connect(f"ws://127.0.0.1:{port}/ws", connect_timeout=2):
                pass
        nursery.cancel_scope.cancel()
    return caught.value


@pytest.mark.parametrize(
    ("answer", "match", "retry"),
    [
        (b"", "hung up", True),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "hung up", True),
        (b"HTTP/1.1 404 NOT FOUND\r\nContent-Length: 2\r\n\r\nno", "no such path", False),
        (b"HTTP/1.1 503 BUSY\r\nContent-Length: 0\r\n\r\n", "HTTP 503", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "no WebSocket", False),
    ],
)
async def test_something_else_answers(answer: bytes, match: str, retry: bool) -> None:
    async def send(stream: trio.abc.Stream) -> None:
        await stream.send_all(answer)

    with trio.fail_after(LIMIT_S):
        assert (await _raw(send, match)).retry == retry


async def _say_nothing(_: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def test_a_server_that_never_answers() -> None:
    with trio.fail_after(LIMIT_S):
        await _raw(_say_nothing, "within 2 s")


async def test_a_websocket_of_another_kind() -> None:
    async def script(peer: Peer) -> None:
        await peer.ws.send_message("hello")
        await trio.sleep_forever()

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub:
            with pytest.raises(ConnectFailed, match="does not speak this protocol") as caught:
                async with connect(stub.url):
                    pass
        assert not caught.value.retry


async def test_a_broken_event_ends_the_session_with_a_typed_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        await peer.expect(Start)
        broken = {"type": "transcription.done", "session_id": "s", "request_id": "u"}
        await peer.ws.send_message(json.dumps(broken))
        await trio.sleep_forever()

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub:
            with pytest.raises(ServerClosed, match="required field") as caught:
                async with connect(stub.url) as session, session.utterance("u") as utterance:
                    await utterance.text()
        assert (caught.value.code, caught.value.retry) == (1002, False)


async def test_unknown_events_are_counted_and_ignored() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        novel = {"type": "speech.started", "session_id": "s", "request_id": "u"}
        await peer.ws.send_message(json.dumps(novel))
        await polite(peer)

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub, connect(stub.url) as session:
            await session.ping()
            assert session.statistics().unknown_events == 1


async def test_leaving_is_bounded_when_the_server_does_not_answer_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        await trio.sleep_forever()

    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub:
            begun = trio.current_time()
            async with connect(stub.url, end_timeout=0.2):
                pass
            assert trio.current_time() - begun < 4


async def test_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        while True:
            await peer.receive()

    monkeypatch.setattr(limits, "ANSWER_S", 0.1)
    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub, connect(stub.url, end_timeout=0.1) as session:
            with pytest.raises(NoAnswer):
                await session.ping()
            async with session.utterance() as utterance:
                with pytest.raises(NoAnswer):
                    await utterance.cancel()


async def test_a_server_that_falls_silent_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """No byte for 45 virtual seconds, over a memory stream: a half-open connection."""
    with trio.fail_after(1000):
        ours, theirs = trio.testing.memory_stream_pair()
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_upgrade_and_fall_silent, theirs)
            with pytest.raises(ServerClosed, match="nothing was heard") as caught:
                async with (
                    connect("ws://memory/ws", stream=ours) as session,
                    session.utterance() as utterance,
                ):
                    await utterance.text()
            nursery.cancel_scope.cancel()
        assert (caught.value.code, caught.value.retry) == (1006, True)
        assert trio.current_time() - begun == pytest.approx(45.0, abs=4)


async def _upgrade_and_fall_silent(stream: trio.abc.Stream) -> None:
    from wsproto import ConnectionType, WSConnection
    from wsproto.events import AcceptConnection, TextMessage

    from voxtral_actors.protocol import codec

    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(bytes(await stream.receive_some()))
    list(server.events())
    await stream.send_all(server.send(AcceptConnection()))
    await stream.send_all(server.send(TextMessage(codec.encode(CREATED))))
    while await stream.receive_some():
        pass


@pytest.mark.parametrize(
    ("url", "shown", "resource"),
    [
        ("ws://h", "ws://h:80/ws", "/ws"),
        ("ws://h:8000/", "ws://h:8000/ws", "/ws"),
        ("wss://h/a/ws?x=1", "wss://h:443/a/ws", "/a/ws?x=1"),
        ("ws://[::1]:8000/ws", "ws://[::1]:8000/ws", "/ws"),
    ],
)
def test_urls(url: str, shown: str, resource: str) -> None:
    address = Address.parse(url)
    assert (address.shown, address.resource) == (shown, resource)


@pytest.mark.parametrize("url", ["http://h/ws", "h:8000", "", "ws://", "ws://u:p@h/ws"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"WebSocket URL|user name"):
        Address.parse(url)


@pytest.mark.parametrize("arguments", [{"api_key": "a\r\nb"}, {"api_key": ""}, {"session_id": ""}])
async def test_arguments_that_cannot_be_sent(arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"api_key|session_id"):
        async with connect("ws://127.0.0.1:1/ws", **arguments):  # type: ignore[arg-type]
            pass


def test_the_library_needs_no_audio_packages() -> None:
    heavy = "numpy soundfile soxr rich sounddevice click quart hypercorn"
    code = f"import sys, voxtral_actors.client; print({heavy.split()} & sys.modules.keys())"
    code = code.replace("[", "{").replace("]", "}")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "set()"
