"""What a client may send that means no good: all of it bytes, all of it from a seed.

`json_message` is one text as a program with a bug, or a person with ideas, would send it. `frames`
is one stretch of the wire, from a whole message to no frame at all. Both are made from valid ones
as often as not, since what is wrong from its first byte on is refused by the first check.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeAlias

from pybase64 import b64encode_as_string

from tests.server.wire_client import envelope
from tests.server.wire_helpers import BINARY, CLOSE, PING, PONG, TEXT, frame

Make: TypeAlias = Callable[[Random], bytes]

CONTINUATION: Final = 0
IDS = ("v0.0", "u1", "u2", "u3", "connection", "x" * 256, "é水🎤", "\u0000", "a\nb", "%s{}")
"""Request ids; the first one is that of somebody else's utterance."""
TYPES = (
    "ping",
    "session.update",
    "cancel",
    "input_audio_buffer.commit",
    "input_audio_buffer.append",
)

# --- JSON ----------------------------------------------------------------------------------------

DEPTHS = (10, 200, 5000, 30_000)
LITERALS = (
    "1e400", "-0", "9" * 400, "1" + "0" * 5000, "NaN", "Infinity", "0.1e-9999", "01", "null",
    "true", '""', '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', "[]", "{}", "[[[]]]", "'x'", "",
    '"' + "x" * 3000 + '"', '{"a":1,"a":2}', "1,", "/*c*/1", "\ufeff1", '"\u2028"',
)  # fmt: skip
NESTS = (("[", "]"), ('{"a":', "}"), ('[{"payload":', "}]"))


def _valid(rng: Random) -> str:
    kind = rng.choice(TYPES)
    payload: dict[str, object] = {}
    match kind:
        case "input_audio_buffer.append":
            payload["audio"] = b64encode_as_string(rng.randbytes(2 * rng.randrange(1, 3000)))
        case "input_audio_buffer.commit" if rng.random() < 0.4:
            payload["final"] = True
        case "cancel" if rng.random() < 0.5:
            payload["reason"] = rng.choice(IDS)
        case _:
            pass
    return envelope(kind, rng.choice(IDS), rng.choice(IDS), payload=payload)


def _with_literal(rng: Random) -> str:
    """A valid message in which one value is another one."""
    fields = json.loads(_valid(rng))
    inside = rng.random() < 0.5
    if inside:
        fields["payload"] = dict.fromkeys(("audio", "final", "reason", "model"))
    holder = fields["payload"] if inside else fields
    holder[rng.choice(list(holder))] = "@@"
    return json.dumps(fields).replace('"@@"', rng.choice(LITERALS))


def _with_duplicates(rng: Random) -> str:
    first, second = _valid(rng), _valid(rng)
    return first[:-1] + ", " + second[1:]


def _nested(rng: Random) -> str:
    opening, closing = rng.choice(NESTS)
    depth = rng.choice(DEPTHS)
    core = opening * depth + "1" + closing * (depth if rng.random() < 0.5 else 0)
    if rng.random() < 0.5:
        return core
    return envelope(rng.choice(TYPES), "u1", payload="@@").replace('"@@"', core)


def _wrong_types(rng: Random) -> str:
    def anything() -> object:
        return rng.choice((None, True, 0, -1, 1.5, "", "x", [], {}, [1], {"a": 1}, "x" * 257))

    return envelope(anything(), anything(), anything(), payload=anything())


def json_message(rng: Random) -> str:
    """One text; most are messages, and about every third one is valid."""
    makes: Sequence[Callable[[Random], str]] = (
        _valid, _valid, _valid, _with_literal, _with_literal, _with_duplicates, _nested,
        _wrong_types, lambda rng: rng.choice(LITERALS),
    )  # fmt: skip
    return rng.choice(makes)(rng)


# --- Frames --------------------------------------------------------------------------------------


def _text(rng: Random) -> bytes:
    return frame(TEXT, json_message(rng).encode(errors="surrogatepass"))


def _speech(rng: Random) -> bytes:
    start = frame(TEXT, envelope("input_audio_buffer.commit", rng.choice(IDS)).encode())
    return start + frame(BINARY, rng.randbytes(rng.randrange(20_000)))


def _control(rng: Random) -> bytes:
    return frame(rng.choice((PING, PONG)), rng.randbytes(rng.choice((0, 1, 125, 125, 126, 300))))


def _close(rng: Random) -> bytes:
    return frame(CLOSE, rng.randbytes(rng.choice((0, 1, 2, 2, 9, 125))))


def _in_fragments(rng: Random) -> bytes:
    """Any text in fragments, with something between them now and then."""
    message, sent, opcode = json_message(rng).encode(errors="surrogatepass")[:5000], b"", TEXT
    while message:
        size = rng.randrange(1, 2000)
        part, message = message[:size], message[size:]
        sent += frame(opcode, part, fin=not message and rng.random() < 0.9)
        opcode = CONTINUATION
        if rng.random() < 0.3:
            sent += _control(rng)
    return sent


def _mutated(rng: Random) -> bytes:
    """A valid stretch with a few octets changed, lost, repeated, or in another place."""
    data = bytearray(rng.choice((_text, _speech, _control, _in_fragments))(rng))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        size = rng.randrange(1, 9)
        match rng.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = data[at : at + size]
            case 3:
                data[at:at] = rng.randbytes(size)
            case _:
                data[: min(14, len(data))] = rng.sample(data[:14], len(data[:14]))
    return bytes(data)


def _lying(rng: Random) -> bytes:
    """A head that announces another length than what comes behind it."""
    length = rng.choice((0, 1, 125, 126, 65_535, 65_536, 2**31, 2**62, 2**63, 2**64 - 1))
    first = 0x80 | rng.choice((TEXT, BINARY, PING, CLOSE))
    if length < 126 or rng.random() < 0.1:
        head = struct.pack("!BB", first, 0x80 | length % 126)
    elif length < 65_536:
        head = struct.pack("!BBH", first, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, length)
    return head + rng.randbytes(rng.randrange(3000))


def _flood(rng: Random) -> bytes:
    """Much of little."""
    one = rng.choice((
        frame(PING), frame(PING, b"x" * 125), frame(PONG), frame(TEXT), frame(BINARY),
        frame(TEXT, b"{"), frame(BINARY, fin=False), frame(CONTINUATION, fin=False),
        frame(TEXT, envelope("ping").encode()), frame(TEXT, envelope("cancel").encode()),
    ))  # fmt: skip
    start = frame(TEXT, fin=False) if one == frame(CONTINUATION, fin=False) else b""
    return start + one * rng.choice((50, 500, 3000))


def _noise(rng: Random) -> bytes:
    return rng.randbytes(rng.choice((1, 2, 14, 500, 20_000)))


def _too_large(rng: Random) -> bytes:
    return frame(rng.choice((TEXT, BINARY)), bytes(120_000), fin=rng.random() < 0.5)


HARMLESS: Sequence[Make] = (_text, _text, _text, _speech, _in_fragments)
HARMFUL: Sequence[Make] = (
    _mutated, _mutated, _mutated, _lying, _flood, _flood, _noise, _too_large, _close, _control,
)  # fmt: skip
"""Most of these end the connection, so a fuzzer that only knew them would not get far."""


def frames(rng: Random) -> bytes:
    return rng.choice(HARMLESS if rng.random() < 0.8 else HARMFUL)(rng)


def no_handshake(rng: Random) -> bytes:
    """What may stand where an upgrade request should."""
    lines = [b"GET /ws HTTP/1.1", b"Host: h", b"Upgrade: websocket", b"Connection: Upgrade"]
    rng.shuffle(lines)
    half = b"\r\n".join(lines) + b"\r\nX: " + rng.randbytes(30)
    return rng.choice((_noise(rng), half, half + b"\r\n\r\n", b"GET / HTTP/1.1\r\n", b"", b"\r\n"))
