"""A WebSocket client that costs next to nothing: frames made beforehand on plain sockets.

A load that is to drive a server to its limit must not be the dearer of the two. So every frame is
made once, sent with one system call, and answers are counted by their frame headers alone.
"""

from __future__ import annotations

import os
import socket
import struct
from base64 import b64encode

from bench.processes import HOST

TEXT, BINARY = 0x1, 0x2
_FINAL, _MASKED = 0x80, 0x80
_SHORT, _LONG = 126, 127


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole client frame, masked with a key of its own as RFC 6455 wants it."""
    key = os.urandom(4)
    size = len(payload)
    if size < _SHORT:
        head = struct.pack("!BB", _FINAL | opcode, _MASKED | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", _FINAL | opcode, _MASKED | _SHORT, size)
    else:
        head = struct.pack("!BBQ", _FINAL | opcode, _MASKED | _LONG, size)
    pad = key * (size // 4 + 1)
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(pad[:size], "big")
    return head + key + masked.to_bytes(size, "big")


def frames_in(data: bytes) -> tuple[int, int]:
    """(how many whole server frames `data` begins with, how many bytes they are)."""
    count = used = 0
    while len(data) - used >= 2:
        size, head = data[used + 1] & 0x7F, 2
        if size == _SHORT:
            head = 4
            size = int.from_bytes(data[used + 2 : used + 4], "big")
        elif size == _LONG:
            head = 10
            size = int.from_bytes(data[used + 2 : used + 10], "big")
        if len(data) - used < head + size:
            break
        count += 1
        used += head + size
    return count, used


class RawWebSocket:
    """One connection; `answers` counts the frames that have come."""

    def __init__(self, port: int, target: str, key: str) -> None:
        self.answers = 0
        self._rest = b""
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        nonce = b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            (
                f"GET {target} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: {nonce}\r\n"
                f"Sec-WebSocket-Version: 13\r\nX-API-Key: {key}\r\n\r\n"
            ).encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.socket.recv(4096)
            if not data:
                raise ConnectionError(f"the server hung up during the handshake: {head!r}")
            head += data
        status, _, self._rest = head.partition(b"\r\n\r\n")
        if b" 101 " not in status.partition(b"\r\n")[0]:
            raise ConnectionError(status.decode(errors="replace"))
        self._count()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> None:
        """Take in what has come; blocks until there is something."""
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("the server hung up")
        self._rest += data
        self._count()

    def close(self) -> None:
        self.socket.close()

    def _count(self) -> None:
        count, used = frames_in(self._rest)
        self.answers += count
        self._rest = self._rest[used:]
