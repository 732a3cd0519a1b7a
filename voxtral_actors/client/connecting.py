"""`connect`: from a URL to a session, and back to nothing left behind.

The session's background tasks live in a nursery of `connect`. What the caller raises inside
the block comes out of it as it is: never inside an exception group, and never replaced by what the
background met at the same time. So `except ServerClosed:` around the block works.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

import trio

from voxtral_actors.client import limits
from voxtral_actors.client.errors import ClientError, ConnectFailed
from voxtral_actors.client.link import Link
from voxtral_actors.client.reconnecting import Keeper, Reconnect
from voxtral_actors.client.session import Session
from voxtral_actors.client.stream import Address, open_stream
from voxtral_actors.limits import MAX_ID_CHARS
from voxtral_actors.protocol.events import SessionCreated

BY_DEFAULT: Final = Reconnect()

_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


@asynccontextmanager
async def connect(
    url: str,
    *,
    api_key: str | None = None,
    session_id: str | None = None,
    binary: bool = True,
    ssl_context: ssl.SSLContext | None = None,
    stream: trio.abc.Stream | None = None,
    reconnect: Reconnect | None = BY_DEFAULT,
    connect_timeout: float = limits.CONNECT_S,
    end_timeout: float = limits.END_S,
) -> AsyncGenerator[Session]:
    """Open a session: `async with connect("ws://127.0.0.1:8000/ws", api_key=key) as session:`.

    Leaving the block ends the session in good order and waits at most `end_timeout` (plus two
    seconds for the socket) for that; leaving it by an exception hangs up within a second. If the
    server closed meanwhile and nobody was told by an error, leaving is silent.

    A connection that is lost after it was open is replaced by another one, unless the server says
    that trying again will not help; utterances go on there, and nothing of them is lost. See
    `Reconnect`; with `reconnect=None` a lost connection ends the session with `ServerClosed`.

    Args:
        url: `ws://…` or `wss://…`; without a path, `/ws`.
        api_key: sent as `Authorization: Bearer`, never in the URL.
        session_id: the client's stable name, echoed in every event; made up if left out.
        binary: send audio as binary frames; False sends base64 text, a third more bytes.
        ssl_context: for `wss`; the system's trust store if left out.
        stream: talk over this open stream instead of connecting (tests, proxies); there is no
            second one to reconnect with.
        reconnect: what to do about a lost connection; see above.
        connect_timeout: seconds from dialling to `session.created`, each time.
        end_timeout: see above.

    Raises:
        ValueError: an argument cannot be used; nothing was sent.
        ConnectFailed: the server could not be reached, or it is no such server.
        ConnectionRefused: it refused, and says why and whether to retry.
    """
    address = Address.parse(url)
    name = _session_name(session_id)
    headers = _headers(api_key)
    policy = None if stream is not None else reconnect

    async def open_socket() -> trio.abc.Stream:
        return stream if stream is not None else await open_stream(address, ssl_context)

    async def dial() -> tuple[Link, SessionCreated]:
        link = Link(address, headers)
        with trio.move_on_after(connect_timeout) as deadline:
            created: SessionCreated = await nursery.start(link.run, open_socket)
        if deadline.cancelled_caught:
            raise _too_late(link, address, connect_timeout)
        # From here on, when the caller is cancelled, the link still says goodbye; what follows is
        # bounded and ends in `abort`, whatever happens.
        link.shielded = True
        return link, created

    session: Session | None = None
    raised: BaseException | None = None
    group: BaseExceptionGroup[BaseException] | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                session = Session(
                    *await dial(),
                    name,
                    nursery,
                    binary=binary,
                    end_timeout=end_timeout,
                    keep_audio_s=policy.keep_audio_s if policy is not None else None,
                )
                if policy is not None:
                    nursery.start_soon(Keeper(session, policy, dial).run)
                yield session
                await session.end()
            except BaseException as error:
                raised = error
                if session is not None:
                    session.close()
                    with trio.move_on_after(limits.HANG_UP_S, shield=True):
                        await session.link.hang_up()
                raise
            finally:
                nursery.cancel_scope.cancel(reason="the session is over")
                if session is not None:
                    session.link.abort()
    except BaseExceptionGroup as grouped:
        group = grouped
    # Outside of the handler, so that the group does not come along as context.
    if raised is not None:
        raise raised
    if group is not None:  # the link raises nothing, but Ctrl-C may strike in any task
        raise KeyboardInterrupt if group.subgroup(KeyboardInterrupt) else group


def _too_late(link: Link, address: Address, seconds: float) -> ClientError:
    # A server may say why and then leave us waiting for its Close frame.
    return link.refusal(1006) or ConnectFailed(
        f"no session at {address.shown} within {seconds:g} s"
    )


def _headers(api_key: str | None) -> list[tuple[bytes, bytes]]:
    if api_key is None:
        return []
    if not _HEADER_SAFE.fullmatch(api_key):
        raise ValueError("api_key is empty or has characters that no HTTP header may carry")
    return [(b"authorization", b"Bearer " + api_key.encode())]


def _session_name(session_id: str | None) -> str:
    if session_id is None:
        return f"client-{uuid4().hex[:12]}"
    if not 0 < len(session_id) <= MAX_ID_CHARS:
        raise ValueError(f"session_id has {len(session_id)} characters; allowed: 1-{MAX_ID_CHARS}")
    return session_id
