"""The accept loop: floods push out themselves, and stopping works in both of its phases."""

from __future__ import annotations

import errno
import resource
from contextlib import AsyncExitStack

import attrs
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.server.wire_app import Seen, echo_app
from tests.server.wire_helpers import (
    HOST,
    OPTIONS,
    TEXT,
    Raw,
    echoes,
    frame,
    serving,
)
from voxtral_actors import limits
from voxtral_actors.server.listener import Listener, open_listeners, serve

HALF_HANDSHAKES = 1000


@pytest.fixture
def many_files() -> None:
    """Both ends of every socket are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * HALF_HANDSHAKES + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files, the hard limit is {hard}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.mark.usefixtures("many_files")
async def test_p6_an_authorised_client_gets_past_1000_half_handshakes() -> None:
    with trio.fail_after(20):
        async with serving() as server, server.bystander(), AsyncExitStack() as stack:
            for _ in range(HALF_HANDSHAKES):
                raw = await stack.enter_async_context(server.raw())
                await raw.send(b"GET /ws HTTP/1.1\r\nHost: h\r\nX-Slow: ")
            start = trio.current_time()
            async with server.socket() as peer:
                await echoes(peer, "hello")
                assert trio.current_time() - start < 1
                statistics = server.listener.statistics()
                assert statistics.admitted == 2
                assert statistics.unadmitted <= limits.MAX_UNADMITTED_SOCKETS
                assert server.ended("pushed_out") >= HALF_HANDSHAKES - statistics.unadmitted - 1


async def test_p6_the_oldest_unadmitted_socket_goes_first_and_admitted_ones_stay() -> None:
    with trio.fail_after(10):
        options = attrs.evolve(OPTIONS, max_unadmitted=3)
        async with (
            serving(options) as server,
            server.socket() as admitted,
            AsyncExitStack() as stack,
        ):
            await echoes(admitted, "before")
            raws = []
            for count in range(1, 6):
                raws.append(await stack.enter_async_context(server.raw()))
                await raws[-1].send(b"GET ")
                while server.listener.statistics().accepted != count + 1:
                    await trio.lowlevel.checkpoint()
            await raws[0].gone()
            await raws[1].gone()
            await server.until_open(4)
            for raw in raws[2:]:
                await raw.send(b"/healthz HTTP/1.1\r\nHost: h\r\n\r\n")
                assert b" 200 " in await raw.head()
            await echoes(admitted, "after")
            assert server.ended("pushed_out") == 2


async def test_cancelling_ends_at_once_though_clients_are_stuck() -> None:
    options = attrs.evolve(OPTIONS, write_deadline_s=60.0)
    seen = Seen()
    listeners = await open_listeners(HOST, 0)
    port = listeners[0].socket.getsockname()[1]
    with trio.fail_after(10):
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            await nursery.start(serve_it, Listener(echo_app(seen), options), listeners)
            for path in ["/flood"] * 5 + ["/deaf", "/undecided", "/ws", "/slow"]:
                stream = await trio.open_tcp_stream(HOST, port)
                raw = Raw(await stack.enter_async_context(stream))
                if path == "/slow":
                    await raw.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
                elif path == "/undecided":
                    await raw.send(b"GET /undecided HTTP/1.1\r\nHost: h\r\n")
                else:
                    await raw.upgrade(path)
            while len(seen.wires) < 7:
                await trio.lowlevel.checkpoint()
            flooding = seen.wires[:5]
            sent = -1
            while sent != (sent := sum(wire.bytes_out for wire in flooding)):
                await trio.testing.wait_all_tasks_blocked(0.02)
            start = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - start < 1


async def serve_it(
    listener: Listener,
    listeners: list[trio.SocketListener],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    try:
        await listener.run(listeners, task_status=task_status)
    finally:
        statistics = listener.statistics()
        assert statistics.open == 0
        assert statistics.ended == {"server_stopped": statistics.accepted}


async def test_stop_accepting_leaves_open_connections_alone() -> None:
    with trio.fail_after(10):
        async with serving() as server:
            async with server.socket() as peer:
                await echoes(peer, "before")
                server.listener.stop_accepting()
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(OSError, match="connect"):
                    await trio.open_tcp_stream(HOST, server.port)
                await echoes(peer, "after")
                assert server.listener.statistics().open == 1
            await server.returned.wait()  # by itself: nothing is left to serve


async def test_stop_accepting_with_nothing_open_ends_the_run() -> None:
    with trio.fail_after(5):
        async with serving() as server:
            server.listener.stop_accepting()
            await server.returned.wait()


class Exhausted(trio.abc.Listener[trio.abc.HalfCloseableStream]):
    """Accepts fail as they do when the process has no file descriptor left, then one succeeds."""

    def __init__(self, failures: list[int], stream: trio.abc.HalfCloseableStream) -> None:
        self.failures = failures
        self.stream = stream

    async def accept(self) -> trio.abc.HalfCloseableStream:
        await trio.lowlevel.checkpoint()
        if self.failures:
            raise OSError(self.failures.pop(), "on purpose")
        if self.stream is None:
            await trio.sleep_forever()
        stream, self.stream = self.stream, None  # type: ignore[assignment]
        return stream

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_running_out_of_file_descriptors_does_not_end_the_loop(
    autojump_clock: MockClock,
) -> None:
    client, server = memory_stream_pair()
    failures = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM] * 3
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            app = echo_app(Seen())
            await nursery.start(serve, app, [Exhausted(failures, server)], OPTIONS)
            raw = Raw(client)
            await raw.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b" 200 " in await raw.head()
            nursery.cancel_scope.cancel()


async def test_each_app_task_finds_its_own_wire() -> None:
    with trio.fail_after(5):
        async with serving() as server, AsyncExitStack() as stack:
            peers = []
            for _ in range(5):
                raw = await stack.enter_async_context(server.raw())
                await raw.upgrade()
                await raw.send(frame(TEXT, b"x"))
                await raw.frame()
                peers.append("{}:{}".format(*raw.stream.socket.getsockname()))  # type: ignore[attr-defined]
            assert [wire.statistics().peer for wire in server.seen.wires] == peers
