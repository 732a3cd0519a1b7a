"""A TCP stream that asks the kernel first where that is likely to do, and last where it is not.

What is sent to a live client is small and its socket has room: `send_now` hands it to the kernel in
one call. What it says comes every 80 ms, so whoever wants to receive has to wait in any case.
trio's own stream has it the other way round, and gives its turn away in every send besides.
"""

from __future__ import annotations

import os

import trio


class DirectStream(trio.abc.HalfCloseableStream):
    """A `trio.SocketStream` with `send_now`. One task receives; sends do not overlap."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket = stream.socket
        self._stream = stream

    def send_now(self, data: bytes) -> int:
        """Hand over what the kernel takes without a wait; returns how many bytes that were.

        Raises:
            trio.BrokenResourceError: the peer, or the stream, is gone.
        """
        try:
            return os.write(self.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as error:  # a closed one has no descriptor
            raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        assert max_bytes is not None  # noqa: S101 - nobody here asks for any number
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            try:
                return os.read(self.socket.fileno(), max_bytes)
            except BlockingIOError:  # it was only thought to be readable
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def aclose(self) -> None:
        await self._stream.aclose()
