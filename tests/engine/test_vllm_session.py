"""One request at vLLM: what is said to it, in which order, and what of it is believed.

`FakeVllm` stands where vLLM's client does. As that one, it reads a request's input in a task of its
own, takes an input that ends for a request that is complete, and one that is cancelled for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from voxtral_actors.engine import vllm_session
from voxtral_actors.engine.vllm_session import Session, SessionLostError

Answer = Callable[[int], Any]


def token(number: int, finish_reason: str | None = None) -> Any:
    return SimpleNamespace(token_ids=[number], finish_reason=finish_reason)


def lost(reason: str, *tokens: int) -> Any:
    return SimpleNamespace(token_ids=list(tokens), finish_reason=reason)


@attrs.define
class FakeVllm:
    """Answers each frame with its number plus 100, or with what the test says."""

    answer: Answer = lambda frame: token(frame + 100)
    hears_abort: bool = True
    did: list[str] = attrs.field(factory=list)

    async def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, **options: Any
    ) -> AsyncGenerator[Any, None]:
        outputs: asyncio.Queue[Any] = asyncio.Queue()
        self.did.append(f"begin {request_id} {sampling_params} {options}")

        async def read() -> None:
            try:
                async for frame in prompt:
                    self.did.append(f"frame {frame}")
                    outputs.put_nowait(self.answer(frame))
            except asyncio.CancelledError:  # noqa: ASYNC103 - as vLLM does
                self.did.append("input cancelled")
            else:
                self.did.append("input complete")
                outputs.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            while (completion := await outputs.get()) is not None:
                if isinstance(completion, Exception):
                    raise completion
                yield SimpleNamespace(outputs=[completion])
            self.did.append("end")
        finally:
            reading.cancel()

    async def abort(self, request_id: str) -> None:
        self.did.append(f"abort {request_id}")
        if not self.hears_abort:
            await asyncio.Event().wait()


def run(
    vllm: FakeVllm, test: Callable[[Session], Coroutine[Any, Any, None]], *, limit_s: float = 10
) -> None:
    """`test`, with a session; nothing runs any more when the session is closed."""

    async def main() -> None:
        session = Session(vllm, "one", "params", 3)
        async with asyncio.timeout(limit_s):
            try:
                await test(session)
            finally:
                await session.close()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_frames_in_tokens_out_and_an_end_in_good_order() -> None:
    vllm = FakeVllm()

    async def speak(session: Session) -> None:
        assert [await session.step(frame) for frame in range(3)] == [100, 101, 102]
        assert session.sent_at is None
        await session.finish()

    run(vllm, speak)

    begin = "begin one params {'data_parallel_rank': 3}"
    frames = ["frame 0", "frame 1", "frame 2"]
    assert vllm.did == [begin, *frames, "input complete", "end"]


def test_an_unused_session_says_nothing_to_vllm() -> None:
    vllm = FakeVllm()

    run(vllm, lambda session: session.finish())

    assert vllm.did == []


def test_the_input_is_over_before_the_request_is_aborted() -> None:
    """A frame behind the abort would begin the request anew."""
    vllm = FakeVllm()

    async def leave(session: Session) -> None:
        await session.step(0)

    run(vllm, leave)

    assert vllm.did[2:] == ["input cancelled", "abort one"]


def test_a_stream_that_is_cancelled_in_a_step_is_aborted_in_the_same_order() -> None:
    vllm = FakeVllm(answer=lambda _: SimpleNamespace(token_ids=[], finish_reason=None))

    async def leave(session: Session) -> None:
        step = asyncio.create_task(session.step(0))
        while "frame 0" not in vllm.did:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert session.sent_at is not None
        step.cancel()
        await asyncio.wait({step})

    run(vllm, leave)

    assert vllm.did[1:] == ["frame 0", "input cancelled", "abort one"]


@pytest.mark.parametrize("turns", range(8))
def test_at_whatever_turn_it_is_cancelled_no_frame_follows_the_abort(turns: int) -> None:
    vllm = FakeVllm()

    async def leave(session: Session) -> None:
        step = asyncio.create_task(session.step(0))
        for _ in range(turns):
            await asyncio.sleep(0)
        step.cancel()
        await asyncio.wait({step})

    run(vllm, leave)

    begun = [what for what in vllm.did if what.startswith(("frame", "abort"))]
    assert begun in ([], ["abort one"], ["frame 0", "abort one"])
    assert "input complete" not in vllm.did


@pytest.mark.parametrize("reason", ["abort", "error"])
@pytest.mark.parametrize("tokens", [(), (7,)])
def test_an_end_that_vllm_made_is_an_error_even_with_a_token(
    reason: str, tokens: tuple[int, ...]
) -> None:
    vllm = FakeVllm(answer=lambda _: lost(reason, *tokens))

    async def hear(session: Session) -> None:
        with pytest.raises(SessionLostError, match=reason):
            await session.step(0)

    run(vllm, hear)


def test_the_length_of_one_frame_is_no_end() -> None:
    vllm = FakeVllm(answer=lambda frame: token(frame, "length"))

    async def hear(session: Session) -> None:
        assert [await session.step(frame) for frame in (5, 6)] == [5, 6]

    run(vllm, hear)


def test_what_the_request_dies_of_is_raised_from_the_step() -> None:
    vllm = FakeVllm(answer=lambda _: ValueError("no such audio"))

    async def hear(session: Session) -> None:
        with pytest.raises(ValueError, match="no such audio"):
            await session.step(0)

    run(vllm, hear)


def test_a_vllm_that_does_not_end_is_known_by_the_time_of_the_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The watch of the engine looks at `sent_at`; and `close` comes to an end all the same."""
    monkeypatch.setattr(vllm_session, "VLLM_CLOSE_S", 0.05)

    class Silent(FakeVllm):
        async def generate(
            self, prompt: Any, sampling_params: Any, request_id: str, **options: Any
        ) -> AsyncGenerator[Any, None]:
            yield SimpleNamespace(outputs=[token(await anext(prompt))])
            await asyncio.Event().wait()

    vllm = Silent(hears_abort=False)

    async def wait(session: Session) -> None:
        await session.step(0)
        end = asyncio.create_task(session.finish())
        await asyncio.sleep(0)
        assert session.sent_at is not None
        end.cancel()
        await asyncio.wait({end})

    run(vllm, wait, limit_s=2)
