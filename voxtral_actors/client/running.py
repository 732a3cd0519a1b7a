"""What the client's commands share: exit statuses, Ctrl-C, and connecting with patience."""

from __future__ import annotations

import signal
import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Final

import attrs
import trio

from voxtral_actors.client.connecting import connect
from voxtral_actors.client.errors import ClientError, ConnectFailed, ConnectionRefused
from voxtral_actors.client.reconnecting import Reconnect
from voxtral_actors.client.session import Session

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
CANNOT_CONNECT: Final = 3
INTERRUPTED: Final = 130

_RETRY_PAUSE_S: Final = 1.0
"""Between two attempts, where the server does not say how long."""


@attrs.frozen
class Server:
    """Which server, and how long to wait for it."""

    url: str
    api_key: str | None
    wait_s: float = 0.0


@attrs.define(eq=False)
class Interrupts:
    """Ctrl-C and SIGTERM, for `run_until_interrupted`.

    The first SIGINT calls `soften`, if it is set, so that a command can finish what it has; the
    next one, or SIGTERM, or the first without it, cancels the command.
    """

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    status: int = OK
    soften: Callable[[], object] | None = None

    def stop(self, status: int) -> None:
        self.status = status
        self.scope.cancel(reason="interrupted")

    def received(self, number: int) -> None:
        soften, self.soften = self.soften, None
        if number == signal.SIGINT and soften is not None:
            soften()
        else:
            self.stop(128 + number)


async def run_until_interrupted(
    command: Callable[[Interrupts], Awaitable[int]],
) -> int:
    """The command's exit status, or that of the signal that ended it."""
    interrupts = Interrupts()
    status = OK
    with ExitStack() as stack:
        signals = None
        if threading.current_thread() is threading.main_thread():
            signals = stack.enter_context(trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM))
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                if signals is not None:
                    async for number in signals:
                        interrupts.received(number)

            nursery.start_soon(watch)
            with interrupts.scope:
                status = await command(interrupts)
            nursery.cancel_scope.cancel()
    return interrupts.status or status


async def with_session(
    server: Server, note: Callable[[str], object], use: Callable[[Session], Awaitable[None]]
) -> None:
    """Connect and call `use`; while the server says "later", try again for `wait_s`, and for as
    long when the connection is lost in the middle.

    Raises:
        ConnectFailed, ConnectionRefused: there was no session.
    """
    again = None
    if server.wait_s:
        again = Reconnect(
            give_up_after_s=server.wait_s,
            notify=lambda error, pause: note(f"{error}; trying again in {pause:.1f} s"),
        )
    deadline = trio.current_time() + server.wait_s
    while True:
        try:
            async with connect(server.url, api_key=server.api_key, reconnect=again) as session:
                return await use(session)
        except (ConnectFailed, ConnectionRefused) as error:
            pause = error.retry_after or _RETRY_PAUSE_S
            if not error.retry or trio.current_time() + pause > deadline:
                raise
            note(f"{error}; trying again in {pause:g} s")
        await trio.sleep(pause)


def explain(error: ClientError, server: Server) -> str:
    """Why there is no session, and what to do about it."""
    said = f"cannot connect: {error}"
    if isinstance(error, ConnectionRefused) and error.code == "authentication_failed":
        hint = "the key is not one of the server's VOXTRAL_API_KEY"
        if server.api_key is None:
            hint = "no key was given: set VOXTRAL_API_KEY or use --api-key"
        return f"{said}; {hint}"
    if isinstance(error, ConnectFailed) and error.status is None and error.retry:
        return f"{said}; is the server running? (voxtral-actors serve, or --url)"
    return f"{said}; try again, or use --wait" if error.retry else said
