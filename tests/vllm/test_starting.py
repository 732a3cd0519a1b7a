"""A start that goes wrong behind vLLM's own; a stand-in takes vLLM's place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.vllm.vllm_harness import settings
from voxtral_actors import limits
from voxtral_actors.engine import vllm_library, vllm_plugin
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


@pytest.mark.parametrize(
    ("wanted", "answers", "level", "why_off"),
    [
        ("true", ["", ""], "info", None),
        ("true", ["", "no such name"], "warning", "no such name"),
        ("false", None, "info", "it is switched off"),
    ],
    ids=["both workers do it", "one of them does not", "nobody asked"],
)
def test_what_the_workers_say_of_batched_audio_is_logged_and_kept(
    wanted: str,
    answers: list[str] | None,
    level: str,
    why_off: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def rpc(method: str, args: tuple[object, ...]) -> list[str]:
        assert (method, args) == ("voxtral_batch", ([16_000, 2160],))
        assert answers is not None
        return answers

    async def aged(_: Any) -> list[vllm_plugin.State]:
        return [vllm_plugin.State("")]

    engine = VllmEngine(settings(Path("nowhere"), VOXTRAL_BATCH_AUDIO=wanted))
    engine._loaded = SimpleNamespace(  # type: ignore[assignment]
        llm=SimpleNamespace(collective_rpc=rpc),
        layout=SimpleNamespace(frame_lengths=(16_000, 2160)),
    )
    monkeypatch.setattr(vllm_plugin, "ask", aged)

    with capture_logs() as lines:
        asyncio.run(engine._tune())

    on = why_off is None
    line = {"event": "vllm.batched_audio", "log_level": level, "on": on, "why_off": why_off}
    assert line in lines
    assert engine.figures.totals()["vllm_batched_audio"] == on
