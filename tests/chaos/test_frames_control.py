"""RFC 6455 section 5.2 and 5.5: pings and pongs, reserved bits, reserved opcodes."""

from __future__ import annotations

import pytest

from tests.chaos.frames import CONTINUATION, Case, check, fragments, ping_command, ping_text, pong
from tests.server.wire_helpers import BINARY, CLOSE, PING, PONG, TEXT, close_payload, frame

ANY = bytes(range(125))
NOT_TEXT = b"\x00\xff\xfe\xed\xa0\x80"

ANSWERED = {
    "ping": Case(frame(PING), (pong(),)),
    "ping with a text": Case(frame(PING, b"hello"), (pong(b"hello"),)),
    "ping with octets that are no text": Case(frame(PING, NOT_TEXT), (pong(NOT_TEXT),)),
    "ping of 124": Case(frame(PING, ANY[:124]), (pong(ANY[:124]),)),
    "ping of 125": Case(frame(PING, ANY), (pong(ANY),)),
    "ten pings, each answered, in their order": Case(
        b"".join(frame(PING, b"%d" % number) for number in range(10)),
        tuple(pong(b"%d" % number) for number in range(10)),
    ),
    "pong": Case(frame(PONG)),
    "pong with a payload": Case(frame(PONG, b"unsolicited")),
    "pong of 125": Case(frame(PONG, ANY)),
    "pongs, then a ping": Case(frame(PONG, b"x") * 10 + frame(PING, b"y"), (pong(b"y"),)),
    "pongs, then a command": Case(frame(PONG, b"x") * 10 + ping_text(), ("pong echo",)),
}


@pytest.mark.parametrize("case", ANSWERED.values(), ids=ANSWERED.keys())
async def test_5_5_2_a_ping_is_answered_and_a_pong_is_not(case: Case) -> None:
    """The pong has "identical Application data"; an unsolicited one is "not expected" to be
    answered (section 5.5.3)."""
    await check(case)


CONTROLS = {"close": CLOSE, "ping": PING, "pong": PONG}
IN_FRAGMENTS = fragments(TEXT, ping_command()[:9], ping_command()[9:])


@pytest.mark.parametrize("opcode", CONTROLS.values(), ids=CONTROLS.keys())
@pytest.mark.parametrize("size", [126, 65_536])
async def test_5_5_a_control_frame_of_more_than_125_octets_is_1002(opcode: int, size: int) -> None:
    payload = close_payload(1000, b"x" * (size - 2))
    await check(Case(frame(opcode, payload), code=1002))


@pytest.mark.parametrize("opcode", CONTROLS.values(), ids=CONTROLS.keys())
async def test_5_5_a_control_frame_in_fragments_is_1002(opcode: int) -> None:
    """ "All control frames … MUST NOT be fragmented": also between a message's own fragments."""
    payload = close_payload(1000)
    split = frame(opcode, payload, fin=False) + frame(CONTINUATION)
    await check(Case(split, code=1002))
    await check(Case(IN_FRAGMENTS[0] + split, code=1002))


RESERVED_BITS = {
    "text": frame(TEXT, ping_command()),
    "binary": frame(BINARY, b"12"),
    "empty text": frame(TEXT),
    "ping": frame(PING, b"x"),
    "pong": frame(PONG),
    "close": frame(CLOSE, close_payload(1000)),
    "first fragment": IN_FRAGMENTS[0],
}


def with_bits(sent: bytes, rsv: int) -> bytes:
    return bytes([sent[0] | rsv << 4]) + sent[1:]


@pytest.mark.parametrize("name", RESERVED_BITS)
async def test_5_2_a_reserved_bit_in_any_kind_of_frame_is_1002(name: str) -> None:
    """No extension is negotiated that could give RSV1 (or another) a meaning."""
    broken = with_bits(RESERVED_BITS[name], 4)
    await check(Case(ping_text(), ("pong echo",), then=broken + ping_text(), code=1002))


@pytest.mark.parametrize("rsv", [1, 2, 3, 5, 6, 7])
async def test_5_2_any_reserved_bit_is_1002(rsv: int) -> None:
    await check(Case(with_bits(ping_text(), rsv), code=1002))


async def test_5_2_a_reserved_bit_in_a_continuation_is_1002() -> None:
    first, last = IN_FRAGMENTS
    await check(Case(first + with_bits(last, 4), code=1002))


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
async def test_5_2_a_reserved_opcode_is_1002(opcode: int) -> None:
    """Empty, with a payload, and between fragments: "the receiving endpoint MUST fail"."""
    await check(Case(frame(opcode), code=1002))
    await check(
        Case(ping_text(), ("pong echo",), then=frame(opcode, b"what") + ping_text(), code=1002)
    )
    await check(Case(IN_FRAGMENTS[0] + frame(opcode, b"?") + IN_FRAGMENTS[1], code=1002))
