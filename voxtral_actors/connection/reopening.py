"""An utterance without a stream: the wait for an engine that can hear it.

It lasts VOXTRAL_REPLAY_BUDGET_S at most, and once more if the process itself stood still meanwhile.
An engine that is ready and has no room is asked again after a pause.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from voxtral_actors.connection import losses
from voxtral_actors.connection.desk import Desk
from voxtral_actors.protocol.signals import Broke
from voxtral_actors.standstill import stood_still
from voxtral_actors.utterance.chain import Chain


class Reopening:
    """See the module. `attempt` tries to open a stream, and returns the error if that failed."""

    def __init__(self, desk: Desk, chain: Chain, attempt: Callable[[], Broke | None]) -> None:
        self._desk = desk
        self._chain = chain
        self._attempt = attempt
        self._budget = desk.settings.replay_budget_s
        self._waiting = trio.CancelScope()
        self._over = False

    def stop(self) -> None:
        """The utterance is over, and the chain was told so."""
        self._over = True
        self._waiting.cancel(reason="the utterance is over")

    async def wait(self, broke: Broke) -> Broke | None:
        """Wait for a stream or the utterance's end; or return what it ends in, made of `broke`,
        which is why it has none."""
        figures = self._desk.figures
        figures.waits += 1
        figures.waiting += 1
        try:
            late = await self._until_open(broke)
        finally:
            figures.waiting -= 1
        self._desk.activity.touch()
        if late is not None:
            figures.given_up["budget"] += 1
        return late

    async def _until_open(self, broke: Broke) -> Broke | None:
        since = trio.current_time()
        due, pause = since + self._budget, losses.REOPEN_FIRST_S
        while self._chain.waiting:
            with trio.CancelScope(deadline=due) as self._waiting:
                await self._desk.engine.wait_ready()
                if self._chain.waiting:
                    broke = self._attempt() or broke
                if self._chain.waiting:
                    await trio.sleep(pause)
                    pause = min(2 * pause, losses.REOPEN_MAX_S)
            if self._over or not self._waiting.cancelled_caught:
                continue
            if stood_still(due):
                due = trio.current_time() + self._budget
                continue
            waited = trio.current_time() - since
            return losses.too_long(broke, waited, self._chain.said_until)
        return None
