"""A session outlives its connections. Time is virtual, the network is memory."""

from __future__ import annotations

import pytest
import trio

from tests.client.network import URL, replicas
from tests.client.speaking import LIMIT_S, QUICK, SECOND, Clock, dies_after, hears, speak, text_of
from tests.client.stub import CREATED, Peer, polite
from voxtral_actors.client import (
    ClientError,
    ConnectFailed,
    ConnectionRefused,
    Reconnect,
    Revised,
    ServerClosed,
    connect,
)
from voxtral_actors.protocol.closing import Close, farewell
from voxtral_actors.protocol.commands import Start
from voxtral_actors.protocol.events import Done


@pytest.mark.parametrize(
    ("first", "second", "revised"),
    [
        ("one ", ("one ", "two three"), False),
        ("one two", ("one ", "two ", "three"), False),
        ("", ("one two",), False),
        ("won ", ("one ", "two"), True),
        ("one two three", ("one ", "two"), True),
    ],
    ids=["goes on", "same words, other pieces", "nothing yet", "other words", "fewer words"],
)
async def test_an_utterance_goes_on_over_the_next_connection(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    second: tuple[str, ...],
    revised: bool,
) -> None:
    """All its audio is sent again, under its id, and text that stays the same is not told twice."""
    scripts = lambda peer: dies_after(peer, first), lambda peer: hears(peer, *second)
    with trio.fail_after(LIMIT_S):
        async with (
            replicas(monkeypatch, *scripts) as network,
            connect(URL, reconnect=QUICK) as session,
            session.utterance("u") as u,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(speak, u, 5)
            events = [event async for event in u]

    assert isinstance(events[-1], Done)
    assert events[-1].text == "".join(second) == text_of(events)
    assert any(isinstance(event, Revised) for event in events) == revised
    assert network.peers[1].audio == SECOND * 5
    assert [c.request_id for c in network.peers[1].got if isinstance(c, Start)] == ["u"]
    assert session.statistics().reconnects == 1


async def test_pauses_grow_are_jittered_and_wait_for_what_the_server_asks(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def drains(peer: Peer) -> None:
        await peer.send(CREATED, farewell("s", "connection", Close.DRAINING))
        await peer.close(1012, "shutting_down")

    async def full(peer: Peer) -> None:
        await peer.send(farewell("s", "connection", Close.AT_CAPACITY))
        await peer.close(1013, "server_at_capacity")

    told: list[tuple[str, float]] = []
    policy = Reconnect(
        jitter=lambda: 0.5, notify=lambda error, pause: told.append((type(error).__name__, pause))
    )
    with trio.fail_after(LIMIT_S):
        async with (
            replicas(monkeypatch, drains, full, None, None, polite) as network,
            connect(URL, reconnect=policy) as session,
            session.utterance() as u,
        ):
            await speak(u, 1)
            await u.text()

    pauses = [b - a for a, b in zip(network.dialled_at, network.dialled_at[1:], strict=False)]
    assert pauses == pytest.approx([1 + 0.25, 2 + 0.5, 1.0, 2.0])
    assert [kind for kind, _ in told] == [
        "ServerClosed", "ConnectionRefused", "ConnectFailed", "ConnectFailed",
    ]  # fmt: skip
    assert [pause for _, pause in told] == pytest.approx(pauses)


def test_a_pause_is_bounded() -> None:
    assert Reconnect(jitter=lambda: 1.0).pause(10_000, None) == 15
    assert all(0 <= Reconnect().pause(n, None) <= 15 for n in range(100))


async def test_after_long_enough_it_gives_up_with_the_last_error(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = Reconnect(give_up_after_s=60, jitter=lambda: 1.0)
    with trio.fail_after(LIMIT_S):
        async with replicas(monkeypatch, dies_after, None) as network:
            with pytest.raises(ConnectFailed, match="nobody"):
                async with connect(URL, reconnect=policy) as session, session.utterance() as u:
                    await speak(u, 200)
    assert 40 < network.dialled_at[-1] - network.dialled_at[1] <= 60


async def test_a_server_that_takes_us_and_drops_us_is_not_reached(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else an utterance that brings a server down would be sent for ever, as fast as can be."""
    with trio.fail_after(LIMIT_S):
        async with replicas(monkeypatch, dies_after) as network:
            with pytest.raises(ServerClosed):
                async with connect(URL, reconnect=QUICK) as session, session.utterance() as u:
                    await speak(u, 200)
    assert len(network.dialled_at) < 20


@pytest.mark.parametrize(
    ("close", "error"),
    [
        (Close.TOO_MANY_BAD, ServerClosed),
        (Close.TOO_BIG, ServerClosed),
        (Close.BAD_KEY, ConnectionRefused),
    ],
)
async def test_what_trying_again_cannot_mend_is_raised(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, close: Close, error: type[ClientError]
) -> None:
    async def refuses(peer: Peer) -> None:
        if close is not Close.BAD_KEY:
            await peer.send(CREATED)
        await peer.send(farewell("s", "connection", close))
        await peer.close(close.spec.code, close.spec.slug)

    scripts = (dies_after, refuses) if close is Close.BAD_KEY else (refuses,)
    with trio.fail_after(LIMIT_S):
        async with replicas(monkeypatch, *scripts) as network:
            with pytest.raises(error) as caught:
                async with connect(URL, reconnect=QUICK) as session, session.utterance() as u:
                    await speak(u, 100)
    assert not caught.value.retry
    assert len(network.dialled_at) == len(scripts)


async def test_off_means_off(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(LIMIT_S):
        async with replicas(monkeypatch, dies_after) as network:
            with pytest.raises(ServerClosed) as caught:
                async with connect(URL, reconnect=None) as session, session.utterance() as u:
                    await speak(u, 100)
    assert caught.value.retry
    assert len(network.dialled_at) == 1
