"""The simulated network does what TCP does, and each toxic what it says."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.chaos.network import MemoryStream, Network
from tests.chaos.toxics import Toxics


async def pair(toxics: Toxics, seed: int = 0) -> tuple[MemoryStream, MemoryStream]:
    """The client's end and the server's."""
    network = Network(seed)
    listener = network.listen()
    client = await network.connect(toxics)
    return client, await listener.accept()


async def read_all(stream: MemoryStream) -> bytes:
    return b"".join([part async for part in stream])


async def test_every_byte_arrives_in_order_and_then_the_end(autojump_clock: MockClock) -> None:
    data = bytes(range(256)) * 400
    toxics = Toxics(latency_s=0.1, jitter_s=0.1, bandwidth=10_000, cuts=5, buffer_bytes=7000)
    client, server = await pair(toxics)

    async def say() -> None:
        for start in range(0, len(data), 1500):
            await client.send_all(data[start : start + 1500])
        await client.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(say)
        assert await read_all(server) == data
    assert trio.current_time() == pytest.approx(10.24 + 0.2, abs=0.2)
    await server.send_all(b"the other direction is open")
    await server.aclose()
    assert await read_all(client) == b"the other direction is open"


async def test_latency_and_bandwidth_say_when_a_byte_arrives(autojump_clock: MockClock) -> None:
    client, server = await pair(Toxics(latency_s=2, bandwidth=100))
    await client.send_all(b"x" * 50)
    sent_at = trio.current_time()
    await server.receive_some()
    assert trio.current_time() - sent_at == pytest.approx(2.5)


async def test_cuts_show_every_byte_boundary(autojump_clock: MockClock) -> None:
    sizes = set()
    for seed in range(60):
        client, server = await pair(Toxics(cuts=1), seed)
        await client.send_all(b"abcde")
        sizes.add(len(await server.receive_some()))
    assert sizes == {1, 2, 3, 4, 5}


async def test_a_writer_waits_for_a_reader_that_stopped(autojump_clock: MockClock) -> None:
    client, server = await pair(Toxics(buffer_bytes=1000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"x" * 2500)
        await wait_all_tasks_blocked()
        assert client.link.upward.written == 1000
        assert len(await server.receive_some(600)) == 600
        await wait_all_tasks_blocked()
        assert client.link.upward.written == 1600
        nursery.cancel_scope.cancel()


async def test_closing_with_unread_input_resets(autojump_clock: MockClock) -> None:
    client, server = await pair(Toxics(latency_s=1))
    await client.send_all(b"unread")
    await server.send_all(b"destroyed under way")
    await trio.sleep(1)
    await server.send_all(b"destroyed too")
    await server.aclose()
    assert await client.receive_some() == b"destroyed under way"  # it had arrived
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"x")


async def test_closing_with_nothing_unread_lets_the_last_words_arrive(
    autojump_clock: MockClock,
) -> None:
    client, server = await pair(Toxics(latency_s=1, slow_close_s=5))
    await server.send_all(b"last words")
    await server.aclose()
    assert await read_all(client) == b"last words"
    assert trio.current_time() >= 6
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"too late")
    with pytest.raises(trio.ClosedResourceError):
        await server.send_all(b"x")


async def test_writing_to_a_closed_peer_is_answered_by_a_reset_behind_what_it_said(
    autojump_clock: MockClock,
) -> None:
    client, server = await pair(Toxics(latency_s=1))
    await server.send_all(b"last words")
    server._outbound.end = lambda: None  # type: ignore[method-assign]  # a close without its EOF
    await server.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"x")
    assert await client.receive_some() == b"last words"
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()


async def test_closing_wakes_the_own_reader(autojump_clock: MockClock) -> None:
    _, server = await pair(Toxics())
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await server.receive_some()

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await server.aclose()


async def test_a_reset_comes_at_its_time_to_both_ends_though_they_wait(
    autojump_clock: MockClock,
) -> None:
    client, server = await pair(Toxics(reset_s=7, buffer_bytes=10))

    async def write() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"x" * 20)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
    assert trio.current_time() == 7
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(b"x")


async def test_a_limit_resets_behind_its_byte(autojump_clock: MockClock) -> None:
    client, server = await pair(Toxics(limit_bytes=5))
    await client.send_all(b"1234567")
    assert await server.receive_some() == b"12345"
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()


@pytest.mark.parametrize("toxics", [Toxics(black_hole_s=3), Toxics(latency_s=0.5)])
async def test_in_a_black_hole_nobody_is_told_anything(
    toxics: Toxics, autojump_clock: MockClock
) -> None:
    client, server = await pair(toxics)
    await client.send_all(b"before")
    assert await server.receive_some() == b"before"
    await trio.sleep(4)
    if not client.link.dark:
        client.vanish()
    await client.send_all(b"x")
    await server.send_all(b"x")
    with trio.move_on_after(1000) as forever:
        await server.receive_some()
    assert forever.cancelled_caught
    await server.aclose()
    with trio.move_on_after(1000) as forever:
        await client.receive_some()
    assert forever.cancelled_caught
    await client.send_all(b"nobody says no")


async def test_who_was_not_accepted_is_turned_away_and_later_nobody_listens(
    autojump_clock: MockClock,
) -> None:
    network = Network(0)
    client = await network.connect()
    await network.listen().aclose()
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    with pytest.raises(ConnectionRefusedError):
        await network.connect()
