"""RFC 6455 section 5.5.1, 7.1 and 7.4: the Close frame, its codes, and what comes after it."""

from __future__ import annotations

import pytest
import trio

from tests.chaos.frames import Case, check, fragments, hear, ping_command, ping_text, session
from tests.engine.scripted import Script
from tests.server.harness import serving, until
from tests.server.wire_client import Client
from tests.server.wire_helpers import BINARY, CLOSE, PING, PONG, TEXT, close_payload, frame

REASONS = {
    "no code": b"",
    "empty reason": close_payload(1000),
    "reason": close_payload(1000, b"goodbye"),
    "reason of 123 octets": close_payload(1000, b"x" * 123),
    "reason in four-octet characters": close_payload(4999, "🎤".encode() * 30),
}
CODES = [
    *(1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013),
    *(3000, 3999, 4000, 4999),
]


async def closed_in_good_order(client: Client, payload: bytes) -> None:
    """The server's Close comes next and says the same, then its EOF; nothing is reset."""
    assert await hear(client) == (CLOSE, payload)
    assert await client.raw.rest() == b""


@pytest.mark.parametrize("payload", REASONS.values(), ids=REASONS.keys())
async def test_5_5_1_a_close_is_answered_and_then_tcp_ends(payload: bytes) -> None:
    """The answer "echoes the status code", if there is one, and the server closes TCP first."""
    async with session() as client:
        await client.raw.send(frame(CLOSE, payload))
        await closed_in_good_order(client, payload)
    async with session() as client:
        for octet in frame(CLOSE, payload):
            await client.raw.send(bytes([octet]))
        await closed_in_good_order(client, payload)


@pytest.mark.parametrize("code", CODES)
async def test_7_4_a_code_that_a_peer_may_send_is_echoed(code: int) -> None:
    """Those of section 7.4.1, 1012 and 1013 of the registry, libraries' and applications' own."""
    async with session() as client:
        await client.raw.send(frame(CLOSE, close_payload(code)))
        await closed_in_good_order(client, close_payload(code))


@pytest.mark.parametrize(
    "code", [0, 1, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]
)
async def test_7_4_a_code_that_nobody_may_send_is_1002(code: int) -> None:
    """Unused ones, reserved ones, and those that "MUST NOT be set … by an endpoint"."""
    await check(Case(frame(CLOSE, close_payload(code)), code=1002))
    await check(Case(frame(CLOSE, close_payload(code, b"why")), code=1002))


MALFORMED = {
    "one octet": (b"\x03", 1002),
    "reason is no UTF-8": (close_payload(1000, b"\xce\xba\xff"), 1007),
    "reason with a surrogate": (close_payload(1000, b"\xed\xa0\x80"), 1007),
    "reason ends inside a character": (close_payload(4000, b"bye\xf0\x9f"), 1007),
}


@pytest.mark.parametrize(("payload", "code"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_5_5_1_a_malformed_close_fails_the_connection(payload: bytes, code: int) -> None:
    """ "If there is a body, the first two bytes … MUST be" a code, and the rest UTF-8."""
    await check(Case(frame(CLOSE, payload), code=code))


AFTERWARDS = {
    "another close": frame(CLOSE, close_payload(4000)),
    "a ping": frame(PING, b"x"),
    "a pong": frame(PONG, b"x"),
    "a command": ping_text(),
    "a broken frame": frame(3, b"x", rsv=7),
    "no frame": b"\xff" * 99,
}
IN_PIECES = fragments(TEXT, ping_command()[:9], ping_command()[9:])


@pytest.mark.parametrize("late", AFTERWARDS.values(), ids=AFTERWARDS.keys())
async def test_5_5_1_what_comes_after_a_close_has_no_answer(late: bytes) -> None:
    """Neither a Pong nor a second Close, though it comes in the same segment."""
    async with session() as client:
        await client.raw.send(frame(CLOSE, close_payload(4321)) + late)
        await closed_in_good_order(client, close_payload(4321))


async def test_5_4_a_close_between_fragments_ends_the_message_too() -> None:
    first, last = IN_PIECES
    async with session() as client:
        await client.raw.send(first + frame(CLOSE, close_payload(1001)) + last)
        await closed_in_good_order(client, close_payload(1001))


async def test_5_5_1_a_close_behind_pings_comes_after_their_pongs() -> None:
    async with session() as client:
        await client.raw.send(frame(PING, b"1") + frame(PING, b"2") + frame(CLOSE))
        assert [await hear(client), await hear(client)] == [(PONG, b"1"), (PONG, b"2")]
        await closed_in_good_order(client, b"")


async def test_5_5_1_a_close_in_the_middle_of_an_utterance_is_answered_at_once() -> None:
    """The text that the engine still owes is not waited for, and not sent after the Close."""
    with trio.fail_after(10):
        async with serving(Script(hang_after=0)) as server, server.session() as client:
            await client.start("u")
            await client.alive()
            await client.raw.send(frame(BINARY, bytes(2560)) + frame(CLOSE, close_payload(1000)))
            await closed_in_good_order(client, close_payload(1000))


@pytest.mark.parametrize("answer", [b"", close_payload(1000), close_payload(4000, b"mine")])
async def test_7_1_2_our_close_is_answered_by_any_close(answer: bytes) -> None:
    """The code of the answer is not ours to judge: TCP ends in good order, and not by a timeout."""
    with trio.fail_after(10):
        async with serving() as server, server.session() as client:
            await our_close(client)
            await client.raw.send(frame(CLOSE, answer))
            assert await client.raw.rest() == b""
            ended = server.running.listener.statistics
            await until(lambda: ended().ended == {"closed": 1}, "it was not in good order")


async def test_7_1_1_data_that_crosses_our_close_is_dropped() -> None:
    """It was sent before the client could know, so it is no fault and has no answer."""
    async with session() as client:
        await our_close(client)
        await client.raw.send(ping_text() + frame(PING, b"x") + frame(BINARY, bytes(10_000)))
        await client.raw.send(frame(CLOSE, close_payload(1000)))
        assert await client.raw.rest() == b""


async def our_close(client: Client) -> None:
    await client.say("end")
    assert await hear(client) == "session_end r1"
    assert await hear(client) == (CLOSE, close_payload(1000, b"end"))
