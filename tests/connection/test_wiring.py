"""Passing on between two actors of a tree that is being torn down."""

from __future__ import annotations

import pytest
import trio

from voxtral_actors.connection.wiring import pass_on


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
