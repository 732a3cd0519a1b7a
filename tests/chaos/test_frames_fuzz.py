"""Octets drawn from a seed, and those that a fuzzer found: the codec and the assembly hold."""

from __future__ import annotations

import struct

import pytest

from tests.chaos.frames_checks import CHECKS, MAX_BYTES, check_decode, check_frames, drawn
from tests.server.wire_client import envelope
from tests.server.wire_helpers import BINARY, CLOSE, PING, TEXT, frame

DEEP = MAX_BYTES // 2 - 100
TEXTS = {
    "ids that an error repeats": envelope("?", "\x00" * 256, "\x7f" * 256),
    "type that an error repeats": envelope("\x01" * 256),
    "cut off inside its payload": envelope("ping", payload={"x": 1})[:-3],
    "deep payload": envelope("ping", payload="@").replace('"@"', "[" * DEEP + "]" * DEEP),
    "number beyond any": envelope("cancel", payload={"reason": 1}).replace("1}", "9" * 3000 + "}"),
    "escapes only": envelope("cancel", payload={"reason": "\ud800" * 256}),
    "audio of padding": envelope("input_audio_buffer.append", payload={"audio": "=" * 8}),
    "audio in the URL's alphabet": envelope("input_audio_buffer.append", payload={"audio": "-_8="}),
    "byte order mark": "\ufeff" + envelope("ping"),
    "nothing": "",
}
FRAMES = {
    "half a character, then a ping, then the rest": frame(TEXT, b"\xc3", fin=False)
    + frame(PING)
    + frame(0, b"\xa9"),
    "empty fragments up to the limit": frame(BINARY, fin=False)
    + frame(0, fin=False) * (MAX_BYTES // 64),
    "too large, and no UTF-8 after that": frame(TEXT, b"x" * (MAX_BYTES + 1) + b"\xff", fin=False),
    "close with half a code": frame(TEXT, b"1") + frame(CLOSE, b"\x03"),
    "announces what never comes": struct.pack("!BBQ", 0x82, 0xFF, 2**62) + bytes(99),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_texts_that_were_thought_of(text: str) -> None:
    check_decode(text.encode(errors="surrogatepass"))


@pytest.mark.parametrize("octets", FRAMES.values(), ids=FRAMES.keys())
def test_frames_that_were_thought_of(octets: bytes) -> None:
    check_frames(octets)


@pytest.mark.parametrize("name", CHECKS)
def test_any_octets(name: str) -> None:
    """The first hundred that the fuzzer starts from."""
    for seed in range(100):
        CHECKS[name](drawn(name, seed)[: 2 * MAX_BYTES])
