"""One request at vLLM: what is said to it, in which order, and what of it is believed.

`FakeLine` stands where the line to vLLM's engine does, and answers in a later turn, as that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from voxtral_actors.engine import vllm_session
from voxtral_actors.engine.vllm_request import End, Frame
from voxtral_actors.engine.vllm_session import Session, SessionLostError

Answer = Callable[[int], Any]


def frame(number: int) -> Frame:
    return Frame(tokens=[number], hash=f"hash {number}", dtype="bfloat16", samples=0, audio=b"")


def token(number: int, finish_reason: str | None = "length") -> Any:
    return SimpleNamespace(new_token_ids=[number], finish_reason=finish_reason)


def lost(reason: str, *tokens: int) -> Any:
    return SimpleNamespace(new_token_ids=list(tokens), finish_reason=reason)


NOTHING = SimpleNamespace(new_token_ids=[], finish_reason=None)


@attrs.define
class FakeLine:
    """Answers each frame with its number plus 100, or with what the test says."""

    answer: Answer = lambda number: token(number + 100)
    hears_abort: bool = True
    did: list[str] = attrs.field(factory=list)
    takers: dict[str, Callable[[Any], None]] = attrs.field(factory=dict)

    def listen(self, request_id: str, take: Callable[[Any], None]) -> None:
        self.did.append(f"listen {request_id}")
        self.takers[request_id] = take

    def forget(self, request_id: str) -> None:
        self.takers.pop(request_id, None)

    async def send(self, request: Any) -> None:
        name = f"{request.request_id}, copy {request.data_parallel_rank}"
        if isinstance(request, End):
            self.did.append(f"end of {name}")
            return
        (number,) = request.tokens
        self.did.append(f"frame {number} of {name}")
        answer = self.answer(number)
        if isinstance(answer, Exception):
            raise answer
        asyncio.get_running_loop().call_soon(self.say, request.request_id, answer)

    def say(self, request_id: str, answer: Any) -> None:
        if take := self.takers.get(request_id):
            take(answer)

    async def abort(self, request_id: str) -> None:
        self.did.append(f"abort {request_id}")
        if not self.hears_abort:
            await asyncio.Event().wait()


def run(
    line: FakeLine, test: Callable[[Session], Coroutine[Any, Any, None]], *, limit_s: float = 10
) -> None:
    """`test`, with a session; nobody listens any more when the session is closed."""

    async def main() -> None:
        session = Session(line, "one", 3)
        async with asyncio.timeout(limit_s):
            try:
                await test(session)
            finally:
                await session.close()
        assert line.takers == {}
        assert session.sent_at is None
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_frames_in_tokens_out_and_an_end_in_good_order() -> None:
    line = FakeLine()

    async def speak(session: Session) -> None:
        assert [await session.step(frame(number)) for number in range(3)] == [100, 101, 102]
        assert session.sent_at is None
        await session.finish()

    run(line, speak)

    frames = [f"frame {number} of one, copy 3" for number in range(3)]
    assert line.did == ["listen one", *frames, "end of one, copy 3"]


def test_an_unused_session_says_nothing_to_vllm() -> None:
    line = FakeLine()

    run(line, lambda session: session.finish())

    assert line.did == []


def test_a_stream_that_is_cancelled_in_a_step_is_aborted_after_its_frame() -> None:
    line = FakeLine(answer=lambda _: NOTHING)

    async def leave(session: Session) -> None:
        step = asyncio.create_task(session.step(frame(0)))
        await asyncio.sleep(0)
        assert session.sent_at is not None
        step.cancel()
        await asyncio.wait({step})

    run(line, leave)

    assert line.did[1:] == ["frame 0 of one, copy 3", "abort one"]


@pytest.mark.parametrize("turns", range(6))
def test_at_whatever_turn_it_is_cancelled_no_frame_follows_the_abort(turns: int) -> None:
    """It would begin the request anew."""
    line = FakeLine()

    async def leave(session: Session) -> None:
        async def speak() -> None:
            for number in range(2):
                await session.step(frame(number))

        step = asyncio.create_task(speak())
        for _ in range(turns):
            await asyncio.sleep(0)
        step.cancel()
        await asyncio.wait({step})

    run(line, leave)

    begun = [what.split()[0] for what in line.did if what.startswith(("frame", "abort"))]
    assert begun in ([], ["frame", "abort"], ["frame", "frame", "abort"])


def test_what_is_answered_after_the_close_reaches_nobody() -> None:
    line = FakeLine(answer=lambda _: NOTHING)

    async def leave(session: Session) -> None:
        step = asyncio.create_task(session.step(frame(0)))
        await asyncio.sleep(0)
        step.cancel()
        await asyncio.wait({step})
        await session.close()
        line.say("one", token(7))

    run(line, leave)


@pytest.mark.parametrize("reason", ["abort", "error"])
@pytest.mark.parametrize("tokens", [(), (7,)])
def test_an_end_that_vllm_made_is_an_error_even_with_a_token(
    reason: str, tokens: tuple[int, ...]
) -> None:
    line = FakeLine(answer=lambda _: lost(reason, *tokens))

    async def hear(session: Session) -> None:
        with pytest.raises(SessionLostError, match=reason):
            await session.step(frame(0))

    run(line, hear)


def test_an_end_between_two_frames_is_the_answer_to_the_next_one() -> None:
    line = FakeLine()

    async def hear(session: Session) -> None:
        assert await session.step(frame(0)) == 100
        line.say("one", lost("error"))
        with pytest.raises(SessionLostError, match="error"):
            await session.step(frame(1))
        await session.finish()

    run(line, hear)

    assert line.did == ["listen one", "frame 0 of one, copy 3", "abort one"]


def test_a_step_without_a_token_is_waited_for() -> None:
    line = FakeLine(answer=lambda _: NOTHING)

    async def hear(session: Session) -> None:
        asyncio.get_running_loop().call_later(0.01, line.say, "one", token(5, None))
        assert await session.step(frame(0)) == 5

    run(line, hear)


def test_what_keeps_a_frame_from_being_sent_is_raised_from_the_step() -> None:
    line = FakeLine(answer=lambda _: ValueError("no engine"))

    async def hear(session: Session) -> None:
        with pytest.raises(ValueError, match="no engine"):
            await session.step(frame(0))

    run(line, hear)


def test_a_vllm_that_does_not_hear_an_abort_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm_session, "VLLM_CLOSE_S", 0.05)
    line = FakeLine(hears_abort=False)

    async def leave(session: Session) -> None:
        await session.step(frame(0))

    run(line, leave, limit_s=2)
