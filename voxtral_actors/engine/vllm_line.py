"""The line to vLLM's engine processes: a frame goes out, and its answer comes in, in one call each.

What vLLM has in front of its engine is made for prompts of all kinds. For a frame of 80 ms it cost
more than everything else on its way: checks, copies, two queues, five turns of the loop. The line
leaves that out, and leaves vLLM its client, which starts the engine, asks it questions, and learns
of its death. It puts itself into four places there (`Line.attach`):

- the encoder, which knows what a frame is in bytes (`vllm_request`);
- the socket that requests are sent with. ZeroMQ takes a message at once, so nobody waits for it;
- the socket that answers are read from, which waits for its descriptor and for nothing else;
- the queue of answers. One for a request of ours is given to it right there, and what is left goes
  the way that it would have gone.

No public interface of vLLM is as deep as that, so `missing` looks for every name that is used here,
and the engine does not start where one is not there. Everything runs in the loop's thread, where
vLLM uses its sockets as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Literal

from voxtral_actors.engine.registry import EngineSetupError
from voxtral_actors.engine.vllm_figures import Figures
from voxtral_actors.engine.vllm_request import Encoder

Take = Callable[[Any], None]
"""What is called with each `EngineCoreOutput` of a request."""

TOUCHED: Mapping[str, tuple[str, ...]] = {
    "engine_core": (
        "add_request_async",
        "abort_requests_async",
        "_ensure_output_queue_task",
        "encoder.encode",
        "input_socket.send_multipart",
        "outputs_queue.put_nowait",
        "resources.output_socket.recv_multipart",
        "resources.output_queue_task",
        "resources.engine_dead",
    ),
    "": ("_run_output_handler", "logger_manager", "errored"),
}
"""What is used of an `AsyncLLM` and of its client."""


def missing(llm: Any) -> list[str]:
    """What this vLLM does not have of it."""
    names = [f"{place}.{name}".strip(".") for place, has in TOUCHED.items() for name in has]
    return [name for name in names if not _has(llm, name)]


def _has(llm: Any, name: str) -> bool:
    try:
        attrgetter(name)(llm)
    except AttributeError:
        return False
    return True


class Line:
    """The line of one `AsyncLLM`. It is silent until `attach`."""

    def __init__(self, llm: Any, encoder: Encoder, figures: Figures) -> None:
        self._llm = llm
        self._core = llm.engine_core
        self._encoder = encoder
        self._answers = _Answers(figures)

    @property
    def open(self) -> int:
        """Requests that are listened for."""
        return len(self._answers.takers)

    def attach(self) -> None:
        """Take the four places; before the first word to the engine, in the loop.

        Raises:
            EngineSetupError: vLLM has begun to read.
        """
        core, resources = self._core, self._core.resources
        if resources.output_queue_task is not None:
            raise EngineSetupError(
                "this vLLM is not as expected: it reads answers before the start"
            )
        core.outputs_queue = self._answers
        core.encoder = self._encoder
        core.input_socket = _Sender(core.input_socket)
        # The task takes it from here. What closes it at the end is to find the one that it knows.
        resources.output_socket = _Receiver(theirs := resources.output_socket)
        core._ensure_output_queue_task()
        resources.output_socket = theirs
        # It reads what is left, and by its end vLLM knows that answers cannot be read any more.
        self._llm._run_output_handler()

    def listen(self, request_id: str, take: Take) -> None:
        """From now on give the answers to this request to `take`."""
        self._answers.takers[request_id] = take

    def forget(self, request_id: str) -> None:
        """Give this request's answers to nobody any more."""
        self._answers.takers.pop(request_id, None)

    async def send(self, request: Any) -> None:
        """Send a frame, which may be the first of its request, or the end of one.

        Raises:
            Exception: the engine is dead.
        """
        await self._core.add_request_async(request)

    async def abort(self, request_id: str) -> None:
        """Have the engine drop a request. It takes messages in order: a frame that was sent before
        is dropped too, and one that would be sent after it would begin the request anew."""
        try:
            await self._core.abort_requests_async([request_id])
        except Exception:  # of a dead engine vLLM may raise anything
            if not self._core.resources.engine_dead:  # else nothing is left in it
                raise


class _Answers(asyncio.Queue[Any]):
    """vLLM's queue of what the engine says, without what is ours."""

    def __init__(self, figures: Figures) -> None:
        super().__init__()
        self.takers: dict[str, Take] = {}
        self._figures = figures

    def put_nowait(self, item: Any) -> None:
        if isinstance(item, Exception):
            super().put_nowait(item)
            return
        others, preempted = [], 0
        for answer in item.outputs:
            take = self.takers.get(answer.request_id)
            if take is None:
                others.append(answer)
                continue
            preempted += sum(event.type.name == "PREEMPTED" for event in answer.events or ())
            take(answer)
        if others:
            item.outputs = others
            super().put_nowait(item)
        if preempted or not others:  # else vLLM's own way brings it there
            self._figures.record(item.engine_index, item.scheduler_stats, preempted)


class _Sent:
    """To be awaited by whoever thinks that sending takes time."""

    def __await__(self) -> Iterator[None]:
        return iter(())


_SENT = _Sent()


class _Sender:
    """A socket to send with, for who uses it as one of `zmq.asyncio`.

    Parts are sent one by one, and flags are plain numbers: with `send_multipart` and members of an
    enum zmq spends more on itself than on the message. `_Receiver` does likewise.
    """

    def __init__(self, socket: Any) -> None:
        import zmq

        self._socket = zmq.Socket.shadow(socket)
        self._last = int(zmq.NOBLOCK)  # it has no high-water mark, and would rather raise than wait
        self._more = int(zmq.NOBLOCK | zmq.SNDMORE)

    def send_multipart(self, parts: Any, copy: bool = True) -> _Sent:
        *before, last = parts
        for part in before:
            self._socket.send(part, self._more)
        self._socket.send(last, self._last)
        return _SENT


class _Receiver:
    """A socket to receive from, for one task, likewise."""

    def __init__(self, socket: Any) -> None:
        import zmq

        self._socket = zmq.Socket.shadow(socket)
        self._flags, self._nothing = int(zmq.NOBLOCK), zmq.Again
        self._loop = asyncio.get_running_loop()
        self._descriptor = socket.getsockopt(zmq.FD)
        self._arrived: asyncio.Future[None] | None = None
        self._loop.add_reader(self._descriptor, self._wake)

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def recv_multipart(self, copy: Literal[False]) -> list[Any]:
        while True:
            # Before the look: what comes after it wakes this.
            self._arrived = self._loop.create_future()
            try:
                parts = [self._socket.recv(self._flags, copy=copy)]
            except self._nothing:
                await self._wait()
                continue
            while parts[-1].more:  # all parts of a message come together
                parts.append(self._socket.recv(self._flags, copy=copy))
            return parts

    async def _wait(self) -> None:
        assert self._arrived is not None  # noqa: S101 - there is a wait for what was looked for
        try:
            await self._arrived
        except asyncio.CancelledError:
            self._loop.remove_reader(self._descriptor)
            raise
