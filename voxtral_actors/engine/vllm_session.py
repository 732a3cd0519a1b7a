"""One streaming request at vLLM: frame in, token out, one frame in flight.

Two asyncio tasks carry it. vLLM's own task reads frames out of `_inputs`; `_collect`, a task of
this session, reads vLLM's results. `step` hands a frame to the one and waits for the other.

The stop order is what matters. A frame that reaches vLLM after the request has been aborted starts
the request anew, and nobody would ever end that one. So `close` first ends the input and waits
until vLLM has let go of it, then aborts, then waits for the results to end. The input ends with a
`CancelledError` of its own making, because an input that just ends is vLLM's sign of a request that
is complete and wants one more step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from voxtral_actors.limits import VLLM_CLOSE_S


class SessionLostError(Exception):
    """vLLM ended the request by itself."""


class Client(Protocol):
    """What a session needs of vLLM: the two methods of `AsyncLLM` that it calls."""

    def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, **options: Any
    ) -> AsyncGenerator[Any, None]: ...

    async def abort(self, request_id: str) -> None: ...


class Session:
    """One request, from its first frame on. Every method is called by one task."""

    def __init__(self, client: Client, request_id: str, params: Any, rank: int | None) -> None:
        self.sent_at: float | None = None
        """When the frame in flight, or the end, was handed over, on the loop's clock."""
        self._client = client
        self._request_id = request_id
        self._params = params
        self._rank = rank
        self._loop = asyncio.get_running_loop()
        self._frames: asyncio.Queue[Any] = asyncio.Queue()
        self._answers: asyncio.Queue[int | Exception] = asyncio.Queue()
        self._input_over = asyncio.Event()
        self._aborting = False
        self._results: asyncio.Task[None] | None = None

    async def step(self, frame: Any) -> int:
        """Have one frame heard; returns the token that it was heard as.

        Raises:
            Exception: what the request or the engine died of.
        """
        if self._results is None:
            self._results = asyncio.create_task(self._collect(), name=self._request_id)
        self.sent_at = self._loop.time()
        self._frames.put_nowait(frame)
        answer = await self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def finish(self) -> None:
        """No more frames: end the request in good order."""
        if self._results is not None:
            self.sent_at = self._loop.time()
            self._frames.put_nowait(None)
            await asyncio.wait({self._results})

    async def close(self) -> None:
        """Leave nothing of the request at vLLM, wherever it stands. Where vLLM does not answer any
        more it takes little more than `VLLM_CLOSE_S`."""
        results, self.sent_at = self._results, None
        if results is None or results.done():
            return
        try:
            async with asyncio.timeout(VLLM_CLOSE_S):
                self._aborting = True
                self._frames.put_nowait(None)
                over = asyncio.ensure_future(self._input_over.wait())
                try:
                    await asyncio.wait({over, results}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    over.cancel()
                await self._client.abort(self._request_id)
        except TimeoutError:
            pass  # its engine is dead or about to be found so
        finally:
            results.cancel()
        await asyncio.wait({results}, timeout=VLLM_CLOSE_S / 2)

    # --- vLLM's task -------------------------------------------------------------------------

    async def _inputs(self) -> AsyncGenerator[Any, None]:
        try:
            while True:
                frame = await self._frames.get()
                if self._aborting:
                    raise asyncio.CancelledError("the stream is aborted")
                if frame is None:
                    return
                yield frame
        finally:
            self._input_over.set()

    # --- The session's own task --------------------------------------------------------------

    async def _collect(self) -> None:
        try:
            outputs = self._client.generate(
                self._inputs(), self._params, self._request_id, data_parallel_rank=self._rank
            )
            async for output in outputs:
                for completion in output.outputs:
                    self._take(completion)
            self._answers.put_nowait(SessionLostError("vLLM ended the request"))
        except Exception as error:
            self._answers.put_nowait(error)

    def _take(self, completion: Any) -> None:
        # An end that comes together with a token is an end: a frame after it would begin anew.
        if completion.finish_reason in ("abort", "error"):
            reason = f"vLLM ended the request: {completion.finish_reason}"
            self._answers.put_nowait(SessionLostError(reason))
        elif completion.token_ids:
            self.sent_at = None
            self._answers.put_nowait(completion.token_ids[-1])
