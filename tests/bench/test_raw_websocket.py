"""The frames of the cheap client are WebSocket frames, and it finds those of a server."""

from __future__ import annotations

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, TextMessage

from bench.raw_websocket import BINARY, TEXT, frame, frames_in

SIZES = (0, 1, 125, 126, 4000, 70_000)


@pytest.mark.parametrize("size", SIZES)
def test_a_server_reads_what_was_framed(size: int) -> None:
    payload = bytes(n % 251 for n in range(size))
    server = Connection(ConnectionType.SERVER)

    server.receive_data(frame(BINARY, payload))
    server.receive_data(frame(TEXT, "naïve".encode()))
    events = list(server.events())

    assert b"".join(e.data for e in events if isinstance(e, BytesMessage)) == payload
    assert [e.data for e in events if isinstance(e, TextMessage)] == ["naïve"]


def test_frames_are_counted_once_they_are_whole() -> None:
    server = Connection(ConnectionType.SERVER)
    data = b"".join(server.send(BytesMessage(data=bytes(size))) for size in SIZES)
    whole = [frames_in(data[:cut])[0] for cut in range(len(data) + 1)]

    assert whole == sorted(whole)
    assert frames_in(data) == (len(SIZES), len(data))
    assert frames_in(data[:-1])[0] == len(SIZES) - 1
