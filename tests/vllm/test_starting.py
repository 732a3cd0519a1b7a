"""A start that goes wrong behind vLLM's own; a stand-in takes vLLM's place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.vllm.vllm_harness import settings
from voxtral_actors import limits
from voxtral_actors.engine import vllm_library
from voxtral_actors.engine.vllm_realtime import EngineStalledError, VllmEngine


def test_a_vllm_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may die between its start and the first question, and forgets who waits for an answer."""
    stopped: list[float] = []

    def shut_down(timeout: float) -> None:
        stopped.append(timeout)

    async def silence(_: Any) -> None:
        await asyncio.Event().wait()

    llm = SimpleNamespace(output_handler=None, shutdown=shut_down)

    monkeypatch.setattr(limits, "VLLM_STALL_S", 0.05)
    monkeypatch.setattr(vllm_library, "import_vllm", lambda: None)
    monkeypatch.setattr(vllm_library, "load", lambda *_: SimpleNamespace(llm=llm))
    monkeypatch.setattr(vllm_library, "greet_workers", silence)

    async def live() -> None:
        engine = VllmEngine(settings(Path("nowhere")))
        try:
            with pytest.raises(EngineStalledError, match="first question"):
                await engine.start()
        finally:
            await engine.stop()  # noqa: ASYNC102 - asyncio, and bounded in there

    asyncio.run(live())
    assert stopped == [limits.VLLM_STOP_S]
