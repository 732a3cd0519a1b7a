"""Coming back after a connection is lost: when to try, how often, and when to stop.

`Reconnect` is the policy, a value. `Keeper` is the task that follows it: it waits for a connection
to end, and, if trying again may help, dials until there is one and lets the session catch up on it.
What cannot be mended (a refusal that says so, or no connection for `give_up_after_s`) becomes the
session's failure.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs
import trio

from voxtral_actors.client import limits
from voxtral_actors.client.errors import ClientError, ConnectFailed, ConnectionRefused, ServerClosed
from voxtral_actors.client.link import Link
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.events import SessionCreated

if TYPE_CHECKING:
    from voxtral_actors.client.session import Session

Dial = Callable[[], Awaitable[tuple[Link, SessionCreated]]]


@attrs.frozen(kw_only=True)
class Reconnect:
    """How `connect` deals with a connection that is lost after it was open."""

    give_up_after_s: float = 120.0
    """Without a connection for this long, the session fails with the last error."""
    first_pause_s: float = 0.5
    """Longest pause before the first attempt; it doubles with each attempt. The pause is drawn from
    0 up to it, so that a thousand clients do not come back at the same moment, and comes on top of
    what the server asks to wait."""
    max_pause_s: float = 15.0
    """Where the doubling ends."""
    keep_audio_s: float = limits.KEEP_AUDIO_S
    """Audio that is kept for each utterance, to be sent again; 32 kB a second."""
    notify: Callable[[ClientError, float], object] | None = None
    """Called before each pause with the reason and the seconds."""
    jitter: Callable[[], float] = random.random
    """Numbers from 0 to 1."""

    def pause(self, attempt: int, advice: float | None) -> float:
        """Seconds before attempt number `attempt`, counted from 0."""
        ceiling = min(self.first_pause_s * 2.0 ** min(attempt, 32), self.max_pause_s)
        return (advice or 0.0) + self.jitter() * ceiling


class Keeper:
    """Keeps a session connected; one a session."""

    def __init__(self, session: Session, policy: Reconnect, dial: Dial) -> None:
        self._session = session
        self._policy = policy
        self._dial = dial
        self._attempt = 0
        self._lost_at = 0.0

    async def run(self) -> None:
        """Returns when the session is over."""
        session = self._session
        while True:
            connected_at = trio.current_time()
            await session.link.ended.wait()
            error = session.link.failure
            if error is None or session.over:
                return
            # A server that takes us and drops us at once is one that cannot be reached.
            if trio.current_time() - connected_at >= limits.STEADY_S or not self._attempt:
                self._attempt, self._lost_at = 0, trio.current_time()
            if isinstance(error, ServerClosed) and error.code == Close.IDLE.spec.code:
                await session.needed()  # a place at the server is for those who use it
                self._lost_at = trio.current_time()
            if not await self._come_back(error):
                return
            await session.catch_up()

    async def _come_back(self, error: ClientError) -> bool:
        """Dial until there is a connection; returns whether there is one."""
        give_up_at = self._lost_at + self._policy.give_up_after_s
        while not self._session.over:
            pause = self._policy.pause(self._attempt, error.retry_after)
            self._attempt += 1
            if not error.retry or trio.current_time() + pause > give_up_at:
                self._session.fail(error)
                break
            if self._policy.notify is not None:
                self._policy.notify(error, pause)
            await trio.sleep(pause)
            try:
                self._session.attach(*await self._dial())
            except (ConnectFailed, ConnectionRefused) as failure:
                error = failure
            else:
                return True
        return False
