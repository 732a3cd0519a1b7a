"""What must hold for any octets at all: of `codec.decode`, and of the assembly of messages.

`fuzz_codec.py` looks for octets for which it does not; `test_frames_fuzz.py` holds it for those
that were found, and for some drawn from a seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import TypeAlias

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from tests.chaos.neighbours_fuzz import frames, json_message
from voxtral_actors.protocol import codec
from voxtral_actors.protocol.commands import Append, BadMessage, Finalise, Start, TooBig
from voxtral_actors.server import websocket_stream

MAX_BYTES = 4096
MAX_CUTS = 200
"""Then the rest comes as one."""
MAX_ERROR_CHARS = 1500
"""Of an error event: it repeats little of a message that may be a mebibyte."""
TOO_LARGE_OR_NO_TEXT = "1009 or 1007"

Outcome: TypeAlias = list[object]


def check_decode(data: bytes) -> None:
    """A command, or an error that can be told; the same each time; and never an exception."""
    for message in (data, data.decode(errors="replace"), data.decode("latin-1")):
        inbound = codec.decode(message, MAX_BYTES)
        assert inbound == codec.decode(message, MAX_BYTES)
        match inbound:
            case TooBig():
                assert len(message.encode() if isinstance(message, str) else message) > MAX_BYTES
            case BadMessage():
                text = codec.encode(inbound.error("sess-1"))
                assert json.loads(text)["payload"]["code"] == inbound.code
                assert len(text) <= MAX_ERROR_CHARS + len(inbound.request_id or "") * 6
            case Append():
                assert inbound.audio
                assert len(inbound.audio) % 2 == 0
            case Start() | Finalise():
                assert 1 <= len(inbound.request_id) <= 256
            case _:
                json.loads(message)  # what was understood is JSON


def check_frames(data: bytes) -> None:
    """Messages, and the end, are the same however TCP cuts the octets up.

    Only of a message that is too large and no UTF-8 either the first piece decides which it is.
    """
    whole = _assembled(iter([data]))
    for size in (1, 7, 1000):
        cuts = range(0, min(len(data), MAX_CUTS * size), size)
        rest = data[len(cuts) * size :]
        pieces = [data[cut : cut + size] for cut in cuts]
        assert whole == _assembled(iter([*pieces, rest]))


def _assembled(pieces: Iterator[bytes]) -> Outcome:
    """What the app would get, and the code of the Close that ends it, if one does."""
    connection = Connection(ConnectionType.SERVER)
    assembly = websocket_stream._Assembly(MAX_BYTES)
    outcome: Outcome = []
    for piece in pieces:
        connection.receive_data(piece)
        for event in connection.events():
            match event:
                case CloseConnection():
                    if connection.state is not ConnectionState.OPEN:
                        return [*outcome, ("closed", event.code)]
                    return [*outcome, TOO_LARGE_OR_NO_TEXT if event.code == 1007 else event.code]
                case TextMessage() | BytesMessage():
                    try:
                        message = assembly.add(event)
                    except websocket_stream._TooBigError:
                        return [*outcome, TOO_LARGE_OR_NO_TEXT]
                    if message is not None:
                        outcome.append(message)
                case _:
                    outcome.append(type(event).__name__)
    return outcome


CHECKS: dict[str, Callable[[bytes], None]] = {"decode": check_decode, "frames": check_frames}


def drawn(name: str, seed: int) -> bytes:
    """Octets to start from."""
    rng = Random(f"{name}/{seed}")
    return json_message(rng).encode(errors="surrogatepass") if name == "decode" else frames(rng)
