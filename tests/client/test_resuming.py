"""What an utterance does when its connection ends under it: hand-over, order, bounds."""

from __future__ import annotations

import pytest
import trio

from tests.client.network import URL, replicas
from tests.client.speaking import LIMIT_S, QUICK, SECOND, Clock, dies_after, hears, speak, text_of
from tests.client.stub import CREATED, Peer, polite
from voxtral_actors.client import (
    Reconnect,
    Revised,
    UtteranceCancelled,
    connect,
)
from voxtral_actors.protocol.closing import Close, farewell
from voxtral_actors.protocol.commands import Append, Finalise, Start
from voxtral_actors.protocol.events import Cancelled, Delta, Done, Error, Usage


async def test_a_server_that_leaves_hands_over_what_it_has_not_transcribed(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It finalises the first two seconds; the words stay, and the next one gets the audio after."""

    async def leaves(peer: Peer) -> None:
        await peer.send(CREATED)
        while len(peer.audio) < 3 * 32_000:
            await peer.receive()
        await peer.send(Delta("s", "u", "early words", 2000))
        await peer.send(Done("s", "u", "early words", Usage(5, 5, 10, 2.0)))
        await peer.send(farewell("s", "connection", Close.DRAINING))
        await peer.close(1012, "shutting_down")

    with trio.fail_after(LIMIT_S):
        async with (
            replicas(monkeypatch, leaves, lambda peer: hears(peer, "late ", "words")) as network,
            connect(URL, reconnect=QUICK) as session,
            session.utterance("u") as u,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(speak, u, 6)
            events = [event async for event in u]

    assert text_of(events) == "early words late words"
    assert events[-1] == Done("s", "u", "early words late words", Usage(6, 6, 12, 6))
    assert network.peers[1].audio == SECOND * 4
    assert not any(isinstance(event, Revised) for event in events)


async def test_a_start_that_a_draining_server_refuses_is_made_elsewhere(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuses(peer: Peer) -> None:
        await peer.send(CREATED)
        start = await peer.expect(Start)
        await peer.send(Error("s", start.request_id, "shutting_down", "leaving", "draining"))
        await trio.sleep(3)
        await peer.close(1012, "shutting_down")

    with trio.fail_after(LIMIT_S):
        async with (
            replicas(monkeypatch, refuses, lambda peer: hears(peer, "here")) as network,
            connect(URL, reconnect=QUICK) as session,
            session.utterance() as u,
        ):
            await speak(u, 2)
            assert await u.text() == "here"
    assert network.peers[1].audio == SECOND * 2


async def test_tails_and_the_active_one_come_back_in_order(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(peer: Peer) -> None:
        await peer.send(CREATED)
        await peer.expect(Finalise)
        await peer.expect(Append)

    with trio.fail_after(LIMIT_S):
        async with (
            replicas(monkeypatch, silent, polite) as network,
            connect(URL, reconnect=QUICK) as session,
            session.utterance("tail") as tail,
        ):
            await tail.send(SECOND)
            await tail.finish()
            async with session.utterance("active") as active:
                await active.send(SECOND * 2)
                assert await tail.text() == "one two 1"
                await active.finish()
                assert await active.text() == "one two 2"
    kinds = [kind for kind in network.peers[1].kinds if kind not in {"Ping", "End"}]
    assert kinds == ["Start", "Append", "Finalise", "Start", "Append", "Append", "Finalise"]


async def test_without_a_connection_cancel_and_barge_in_need_no_server(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with trio.fail_after(LIMIT_S):
        async with (
            replicas(monkeypatch, dies_after, None, None, None, polite) as network,
            connect(URL, reconnect=QUICK) as session,
            session.utterance("old") as old,
        ):
            await old.send(SECOND)
            await session.link.ended.wait()
            async with session.utterance("new") as new:
                assert isinstance(old.outcome, Cancelled)
                with pytest.raises(UtteranceCancelled, match="superseded"):
                    await old.send(SECOND)
                await new.cancel("never mind")
                assert len(network.dialled_at) == 1
            async with session.utterance("newest") as newest:
                await speak(newest, 3)
                assert await newest.text() == "one two 3"
    starts = [command for command in network.peers[1].got if isinstance(command, Start)]
    assert [start.request_id for start in starts] == ["newest"]


async def test_an_idle_session_comes_back_when_it_is_needed(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def idle(peer: Peer) -> None:
        await peer.send(CREATED)
        await trio.sleep(150)
        await peer.close(4000, "idle_timeout")

    with trio.fail_after(LIMIT_S):
        async with (
            replicas(monkeypatch, idle, polite) as network,
            connect(URL, reconnect=QUICK) as session,
        ):
            await trio.sleep(500)
            assert len(network.dialled_at) == 1
            async with session.utterance() as u:
                await speak(u, 1)
                assert await u.text() == "one two 1"


async def test_a_long_utterance_goes_on_in_the_middle_and_keeps_its_bound(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten seconds are kept. What had its text is not sent again, and that text stands."""

    async def long(peer: Peer) -> None:
        await peer.send(CREATED)
        while len(peer.audio) < 30 * 32_000:
            await peer.receive()
        await peer.send(Delta("s", "u", "twenty eight seconds", 28_000))

    policy = Reconnect(jitter=lambda: 1.0, keep_audio_s=10)
    with trio.fail_after(LIMIT_S):
        async with (
            replicas(monkeypatch, long, lambda peer: hears(peer, "and more")) as network,
            connect(URL, reconnect=policy) as session,
            session.utterance("u") as u,
        ):
            await speak(u, 40)
            assert await u.text() == "twenty eight seconds and more"
            assert u.lost_s == 0
    # Text trails by 400 ms, and a second before it is sent again: from 26.6 s on.
    assert len(network.peers[1].audio) == 134 * 3_200


async def test_sending_waits_while_as_much_is_kept_as_may_be(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = Reconnect(jitter=lambda: 1.0, keep_audio_s=5)
    sent = 0
    with trio.fail_after(LIMIT_S):
        async with (
            replicas(monkeypatch, dies_after, *[None] * 5, polite) as network,
            connect(URL, reconnect=policy) as session,
            session.utterance() as u,
        ):
            await u.send(SECOND)
            await session.link.ended.wait()
            with trio.move_on_after(10):
                for _ in range(60):
                    await u.send(SECOND)
                    sent += 1
            assert sent == 3
            await u.finish()
            await u.text()
    assert network.peers[1].audio == SECOND * 5  # of the call that waited, all was accepted
