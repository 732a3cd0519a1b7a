"""One streaming request at vLLM: frame in, token out, one frame in flight.

To vLLM a request that may go on is one that comes again and again under the same name, each time
with what is new of its prompt. So a frame is a request, and the first one begins it.

The stop order is what matters. A frame that reaches the engine after its request has been aborted
starts the request anew, and nobody would ever end that one. Frames are sent by `step` and by
nothing else, at once, and whoever awaits `step` is the one who then calls `close`: so no frame can
be on its way when `close` aborts. Answers that come later have no listener.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from voxtral_actors.engine.vllm_request import End
from voxtral_actors.limits import VLLM_CLOSE_S


class SessionLostError(Exception):
    """vLLM ended the request by itself."""


class Line(Protocol):
    """What a session needs of `vllm_line.Line`."""

    def listen(self, request_id: str, take: Callable[[Any], None]) -> None: ...

    def forget(self, request_id: str) -> None: ...

    async def send(self, request: Any) -> None: ...

    async def abort(self, request_id: str) -> None: ...


class Session:
    """One request, from its first frame on. Every method is called by one task."""

    def __init__(self, line: Line, request_id: str, rank: int | None) -> None:
        self.sent_at: float | None = None
        """When the frame in flight was handed over, on the loop's clock."""
        self._line = line
        self._request_id = request_id
        self._rank = rank
        self._loop = asyncio.get_running_loop()
        self._begun = False
        self._answer: asyncio.Future[int] | None = None
        self._lost: SessionLostError | None = None

    async def step(self, frame: Any) -> int:
        """Have one frame heard; returns the token that it was heard as.

        Raises:
            Exception: what the request or the engine died of.
        """
        if self._lost is not None:
            raise self._lost
        if not self._begun:
            self._begun = True
            self._line.listen(self._request_id, self._take)
        self._answer = self._loop.create_future()
        await self._send(frame)
        return await self._answer

    async def finish(self) -> None:
        """No more frames: end the request in good order, which the engine answers with nothing."""
        if self._begun and self._lost is None:
            await self._send(End())
            self._over()

    async def close(self) -> None:
        """Leave nothing of the request at vLLM, wherever it stands, in `VLLM_CLOSE_S` at most."""
        if not self._begun:
            return
        self._over()
        with suppress(TimeoutError):  # its engine is dead or about to be found so
            async with asyncio.timeout(VLLM_CLOSE_S):
                await self._line.abort(self._request_id)

    async def _send(self, request: Any) -> None:
        request.request_id, request.data_parallel_rank = self._request_id, self._rank
        self.sent_at = self._loop.time()
        await self._line.send(request)

    def _over(self) -> None:
        self._begun, self.sent_at = False, None
        self._line.forget(self._request_id)

    # --- The line's call -----------------------------------------------------------------------

    def _take(self, answer: Any) -> None:
        # An end that comes together with a token is an end: a frame after it would begin anew.
        waiting = self._answer if self._answer is not None and not self._answer.done() else None
        if answer.finish_reason is not None and str(answer.finish_reason) in ("abort", "error"):
            self._lost = SessionLostError(f"vLLM ended the request: {answer.finish_reason}")
            if waiting is not None:
                waiting.set_exception(self._lost)
        elif answer.new_token_ids:
            self.sent_at = None
            if waiting is not None:
                waiting.set_result(answer.new_token_ids[-1])
