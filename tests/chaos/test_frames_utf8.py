"""RFC 6455 section 8.1: text is UTF-8 (RFC 3629) however it is cut up, or the connection fails.

Only the message as a whole has to be UTF-8 (section 5.6): a fragment may end inside a character.
What can no longer become UTF-8 is refused at once, and not when the message ends.
"""

from __future__ import annotations

import pytest

from tests.chaos.frames import CONTINUATION, Case, check, fragments, ping_command, pong, session
from tests.engine.scripted import transcript
from tests.server.wire_helpers import BINARY, PING, TEXT, frame
from voxtral_actors.protocol.events import Done

VALID = {
    "two octets, first and last": "\u0080 \u07ff",
    "three octets, first and last": "\u0800 \uffff",
    "four octets, first and last": "\U00010000 \U0010ffff",
    "around the surrogates": "\ud7ff \ue000",
    "noncharacters": "\ufffe \ufdd0 \ufdef \U0001fffe \U0001ffff \U0010fffe",
    "byte order mark": "\ufeff\ufeff",
    "replacement character": "\ufffd",
    "combining and from right to left": "e\u0301 \u05d0\u202e x",
    "of every length": "aß水🎤" * 8,
}


def at_every_octet(message: bytes) -> bytes:
    parts = [message[at : at + 1] for at in range(len(message))]
    return b"".join(fragments(TEXT, *parts))


@pytest.mark.parametrize("name", VALID.values(), ids=VALID.keys())
async def test_8_1_any_text_comes_back_as_it_was(name: str) -> None:
    """In one frame, and with a fragment border inside of every character."""
    message = ping_command(name)
    await check(Case(frame(TEXT, message), (f"pong {name}",)))
    await check(Case(at_every_octet(message), (f"pong {name}",)))


async def test_5_6_a_character_may_be_split_around_a_control_frame() -> None:
    message = ping_command("🎤")
    cut = message.index("🎤".encode()) + 2
    first, last = fragments(TEXT, message[:cut], message[cut:])
    await check(Case(first + frame(PING, b"\xff") + last, (pong(b"\xff"), "pong 🎤")))


INVALID = {
    "continuation alone": b"\x80",
    "last continuation alone": b"\xbf",
    "lead octet, then ASCII": b"\xc3a",
    "lead of three, then ASCII": b"\xe6\xb0a",
    "two leads": b"\xc3\xc3\xa9",
    "overlong, two octets": b"\xc0\xaf",
    "overlong, two octets, the largest": b"\xc1\xbf",
    "overlong, three octets": b"\xe0\x80\xaf",
    "overlong, three octets, the largest": b"\xe0\x9f\xbf",
    "overlong, four octets": b"\xf0\x80\x80\xaf",
    "overlong, four octets, the largest": b"\xf0\x8f\xbf\xbf",
    "overlong zero": b"\xc0\x80",
    "high surrogate, the first": b"\xed\xa0\x80",
    "low surrogate, the last": b"\xed\xbf\xbf",
    "surrogates in a pair": b"\xed\xa0\xbd\xed\xb8\x80",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "beyond U+13FFFF": b"\xf5\x80\x80\x80",
    "five octets": b"\xf8\x88\x80\x80\x80",
    "six octets": b"\xfc\x84\x80\x80\x80\x80",
    "0xfe": b"\xfe",
    "0xff": b"\xff",
    "Latin-1": "é".encode("latin-1") + b" ",
    "UTF-16": "hi".encode("utf-16"),
}


@pytest.mark.parametrize("wrong", INVALID.values(), ids=INVALID.keys())
async def test_8_1_what_is_not_utf_8_is_1007(wrong: bytes) -> None:
    """At once: the rest of the message is neither there nor announced, or it is never sent."""
    await check(Case(frame(TEXT, b"x" + wrong), code=1007))
    await check(Case(frame(TEXT, b"x" + wrong, fin=False), code=1007))  # fail fast, by frame
    but_one = at_every_octet(b"x" + wrong + b" ").removesuffix(frame(CONTINUATION, b" "))
    await check(Case(but_one, code=1007))
    await check(Case(frame(TEXT, b"x" + wrong + b"y" * 200)[:-200], code=1007))  # within a frame


CUT_OFF = {
    "after one of two": b"\xc3",
    "after one of three": b"\xe6",
    "after two of three": b"\xe6\xb0",
    "after one of four": b"\xf0",
    "after two of four": b"\xf0\x9f",
    "after three of four": b"\xf0\x9f\x8e",
}


@pytest.mark.parametrize("start", CUT_OFF.values(), ids=CUT_OFF.keys())
async def test_8_1_a_character_that_the_end_cuts_off_is_1007(start: bytes) -> None:
    """Until the end it could have become UTF-8: a ping is answered before, and nothing after."""
    await check(Case(frame(TEXT, b"x" + start), code=1007))
    await check(
        Case(
            frame(TEXT, start, fin=False) + frame(PING, b"?"),
            (pong(b"?"),),
            then=frame(CONTINUATION),
            code=1007,
        )
    )


async def test_5_6_the_next_message_starts_afresh() -> None:
    """What was left over of one message would make the next one valid: it must not."""
    await check(Case(frame(TEXT, b"\xe6\xb0") + frame(TEXT, b"\xb4"), code=1007))
    await check(
        Case(frame(PING, b"\xe6\xb0") + frame(TEXT, b"\xb4"), (pong(b"\xe6\xb0"),), code=1007)
    )


@pytest.mark.parametrize("octets", [b"".join(INVALID.values()) + b" ", bytes(range(256))])
async def test_5_6_a_binary_message_is_arbitrary_data(octets: bytes) -> None:
    octets = octets[: len(octets) // 2 * 2]
    async with session() as client:
        await client.start("u")
        await client.raw.send(b"".join(fragments(BINARY, octets[:3], octets[3:])))
        await client.finish("u")
        assert (await client.hear_past_deltas(Done)).text == transcript(octets)
