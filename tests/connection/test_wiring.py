"""Passing on between two actors, also of a tree that is being torn down, and passing one by."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from voxtral_actors.connection.wiring import Queue, pass_on


async def test_a_cancelled_sender_is_cancelled_although_its_receiver_was_first() -> None:
    """Which of the two is cancelled first is chance, and an error here would be called a bug."""
    send, receive = trio.open_memory_channel[int](1)
    receive.close()
    with send, trio.CancelScope() as scope:
        scope.cancel()
        await pass_on(send, 1)
    assert scope.cancelled_caught


async def test_a_receiver_that_is_gone_is_an_error_otherwise() -> None:
    send, receive = trio.open_memory_channel[int](1)
    receive.close()
    with send, pytest.raises(trio.BrokenResourceError):
        await pass_on(send, 1)


async def test_an_actor_is_passed_by_only_while_it_waits_and_nothing_is_on_its_way() -> None:
    queue = Queue[int](2)
    taken: list[int] = []

    async def actor() -> None:
        while True:
            taken.append(await queue.take())
            assert not queue.idle, "it works on something"

    with queue.send, queue.receive:
        assert not queue.idle, "nobody is there"
        await queue.put(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor)
            assert not queue.idle
            await wait_all_tasks_blocked()
            assert queue.idle
            await queue.put(2)
            assert not queue.idle, "the actor has not got it yet"
            await wait_all_tasks_blocked()
            assert queue.idle
            assert taken == [1, 2]
            nursery.cancel_scope.cancel()
        assert not queue.idle, "it is gone"


async def test_who_waits_for_room_is_not_overtaken() -> None:
    queue = Queue[int](1)
    with queue.send, queue.receive:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(queue.put, number)
                await wait_all_tasks_blocked()
            assert [await queue.take() for _ in range(3)] == [0, 1, 2]
            assert not queue.idle


async def test_the_end_of_the_channel_ends_the_actor() -> None:
    queue = Queue[int](1)
    await queue.put(1)
    queue.send.close()
    with queue.receive:
        assert await queue.take() == 1
        with pytest.raises(trio.EndOfChannel):
            await queue.take()
    assert not queue.idle
