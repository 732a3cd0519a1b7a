"""RFC 6455 section 5.2 and 5.3: every form of the length, the mask, and our limit on a message."""

from __future__ import annotations

import struct

import pytest

from tests.chaos.frames import (
    LIMIT,
    Case,
    check,
    hear,
    masked,
    ping_command,
    ping_text,
    pong,
    session,
    unmasked,
)
from tests.engine.scripted import speech, transcript
from tests.server.wire_helpers import BINARY, CLOSE, PING, TEXT, close_payload, frame
from voxtral_actors.protocol.events import Done

SHORT = len(ping_command())
SIZES = (SHORT, 124, 125, 126, 127, 128, 65_534, 65_535, 65_536, 65_537, LIMIT - 1, LIMIT)


def stretched(opcode: int, payload: bytes, form: int) -> bytes:
    """A frame with its length in the 16-bit (126) or 64-bit form (127), needed or not."""
    length = struct.pack("!H" if form == 126 else "!Q", len(payload))
    return struct.pack("!BB", 0x80 | opcode, 0x80 | form) + length + b"\0\0\0\0" + payload


def announced(opcode: int, length: int) -> bytes:
    """Only the head of a frame: what it announces need not come."""
    return struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length) + b"\0\0\0\0"


@pytest.mark.parametrize("size", SIZES)
async def test_5_2_a_text_of_any_size_up_to_the_limit_is_a_message(size: int) -> None:
    """The three forms of the payload length, at their borders and at ours."""
    await check(Case(ping_text(size=size), ("pong echo",)))


@pytest.mark.parametrize(("text", "reason_code"), [(b"", "invalid_json"), (b"1", "not_an_object")])
async def test_5_2_a_text_too_short_for_a_command_is_still_a_message(
    text: bytes, reason_code: str
) -> None:
    """ "Payload data" may be empty; what it says is then no command, and no protocol error."""
    await check(Case(frame(TEXT, text), (f"error {reason_code}",)))


@pytest.mark.parametrize("size", [0, 1, 2, 125, 126, 127, 65_534, 65_535, 65_536, LIMIT])
async def test_5_2_a_binary_of_any_size_up_to_the_limit_is_a_message(size: int) -> None:
    """Half a sample is an error of ours about one message; all the rest is heard."""
    pcm = speech(3, seed=size)[:size]
    around = speech(0.16, seed=1)
    async with session() as client:
        await client.start("u")
        await client.send(around)
        await client.send(pcm)
        if size % 2 or not size:
            while (event := await client.next()).TYPE != "error":
                pass
            assert getattr(event, "reason_code", None) == "invalid_audio"
            pcm = b""
        await client.finish("u")
        assert (await client.hear_past_deltas(Done)).text == transcript(around + pcm)


TOO_LARGE = {
    "one octet, text": ping_text(size=LIMIT + 1),
    "one octet, binary": frame(BINARY, bytes(LIMIT + 1)),
    "16 bits of announcement, in pieces": frame(TEXT, b" " * 65_535, fin=False)
    + frame(0, b" " * (LIMIT - 65_534)),
    "announced, and most of it never sent": announced(BINARY, 2**40) + bytes(LIMIT + 1),
    "the largest announcement of all": announced(TEXT, 2**63 - 1) + b" " * (LIMIT + 1),
}


@pytest.mark.parametrize("sent", TOO_LARGE.values(), ids=TOO_LARGE.keys())
async def test_7_4_1_one_octet_over_the_limit_is_1009(sent: bytes) -> None:
    await check(Case(sent, code=1009))


LENGTHS = {
    "16 bits for 0": stretched(TEXT, b"", 126),
    "16 bits for 125": stretched(TEXT, b" " * 125, 126),
    "64 bits for 0": stretched(TEXT, b"", 127),
    "64 bits for 125": stretched(BINARY, b" " * 125, 127),
    "64 bits for 65535": stretched(BINARY, b" " * 65_535, 127),
    "the highest of 64 bits": announced(TEXT, 2**63),
    "all of 64 bits": announced(BINARY, 2**64 - 1),
    "16 bits in a ping": stretched(PING, b"", 126),
    "64 bits in a ping": stretched(PING, b"", 127),
    "16 bits in a close": stretched(CLOSE, close_payload(1000), 126),
}


@pytest.mark.parametrize("sent", LENGTHS.values(), ids=LENGTHS.keys())
async def test_5_2_a_length_in_any_but_its_shortest_form_is_1002(sent: bytes) -> None:
    """ "The minimal number of bytes MUST be used", "the most significant bit MUST be 0"."""
    await check(Case(sent, code=1002))


@pytest.mark.parametrize("key", ["00000000", "ffffffff", "12345678", "00ff00ff", "a1000000"])
async def test_5_3_every_mask_is_taken_off(key: str) -> None:
    """Octet i of the payload is masked by octet i mod 4 of the key, from each frame's start."""
    secret = bytes.fromhex(key)
    sent, heard = b"", []
    for size in range(5):
        name, beat = "é" * (size + 1), b"beat!"[:size]
        sent += masked(TEXT, ping_command(name), secret) + masked(PING, beat, secret)
        heard += [f"pong {name}", pong(beat)]
    async with session() as client:
        await client.raw.send(sent)
        got = [await hear(client) for _ in heard]
        assert sorted(map(str, got)) == sorted(map(str, heard))  # a pong may overtake an answer


UNMASKED = {
    "text": unmasked(TEXT, ping_command()[:100]),
    "empty text": unmasked(TEXT),
    "binary": unmasked(BINARY, b"12"),
    "ping": unmasked(PING, b"x"),
    "close": unmasked(CLOSE, close_payload(1000)),
}


@pytest.mark.parametrize("sent", UNMASKED.values(), ids=UNMASKED.keys())
async def test_5_1_a_frame_without_a_mask_is_1002(sent: bytes) -> None:
    """ "A server MUST close the connection upon receiving a frame that is not masked"."""
    await check(Case(ping_text(), ("pong echo",), then=sent, code=1002))
