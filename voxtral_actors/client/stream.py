"""The byte stream below the WebSocket, made so that every way it ends is noticed and told apart.

trio-websocket waits for ever for an upgrade that the peer has hung up on, and a failed write makes
it forget the Close frame that may be waiting to be read. `WatchedStream` mends both: before the
upgrade, a stream that ends raises `CutShortError`; after it, a failed write is left for the reader
to find out about, which reads what the peer said last before it reads that the peer is gone.
"""

from __future__ import annotations

import os
import re
import ssl
from urllib.parse import urlsplit

import attrs
import trio

from voxtral_actors.client.errors import ConnectFailed


class CutShortError(Exception):
    """The stream ended before the WebSocket was open."""


@attrs.frozen
class Address:
    """Where a server is. `shown` is the URL without its query, which may hold a key."""

    host: str
    port: int
    resource: str
    tls: bool
    shown: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Take a `ws://` or `wss://` URL apart; without a path, the path is `/ws`.

        Raises:
            ValueError: it is no such URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"ws", "wss"} or not parts.hostname:
            raise ValueError(
                f"{_without_secrets(url)!r} is no WebSocket URL; it looks like ws://127.0.0.1:8000/ws"
            )
        if parts.username is not None or parts.password is not None:
            raise ValueError("the URL holds a user name; the key goes into api_key")
        tls = parts.scheme == "wss"
        path = parts.path if parts.path not in {"", "/"} else "/ws"
        resource = f"{path}?{parts.query}" if parts.query else path
        port = parts.port or (443 if tls else 80)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(parts.hostname, port, resource, tls, f"{parts.scheme}://{host}:{port}{path}")

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def _without_secrets(url: str) -> str:
    """Any text meant as a URL, as it was given but for its query and a user's name and password."""
    where, query, _ = url.partition("?")
    return re.sub(r"(//|^)[^/]*@", r"\1…@", where) + query + "…" * bool(query)


async def open_stream(address: Address, context: ssl.SSLContext | None) -> trio.abc.Stream:
    """Open the TCP connection, with TLS for `wss`.

    Raises:
        ConnectFailed: there is nobody, or its certificate is not trusted.
    """
    try:
        if not address.tls:
            return await trio.open_tcp_stream(address.host, address.port)
        stream = await trio.open_ssl_over_tcp_stream(
            address.host,
            address.port,
            ssl_context=context or ssl.create_default_context(),
            https_compatible=True,
        )
    except OSError as error:
        raise ConnectFailed(f"cannot reach {address.shown}: {plain_reason(error)}") from None
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        cause = error.__cause__ or error
        raise ConnectFailed(f"no TLS with {address.shown}: {cause}", retry=False) from None
    except BaseException:  # a deadline or Ctrl-C: the socket must not outlive it
        await trio.aclose_forcefully(stream)
        raise
    return stream


def plain_reason(error: OSError) -> str:
    """The reason alone: trio joins the attempts on every address of a name into one error."""
    inner = error.__cause__
    if isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    cause = inner if isinstance(inner, OSError) else error
    if cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno)  # trio's own text repeats the address
    return cause.strerror or str(cause)


class WatchedStream(trio.abc.Stream):
    """A stream that knows when it was last heard, and ends in the ways told above."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.heard_at = trio.current_time()
        self.upgraded = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            if not self.upgraded:
                raise CutShortError from None
            await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if not self.upgraded:
                raise CutShortError from None
            raise
        if not data and not self.upgraded:
            raise CutShortError
        self.heard_at = trio.current_time()
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()
