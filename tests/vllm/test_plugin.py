"""The plugin in vLLM: sessions hear the same with it, and what it cannot carry on ends in an error.

vLLM's schedulers without a model (`idle_vllm`); `test_plugin_model` has the model.
"""

from __future__ import annotations

import logging
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.vllm.vllm_harness import settings
from voxtral_actors.engine import vllm_args, vllm_plugin
from voxtral_actors.engine.vllm_plugin import ARCHITECTURE, KEY, TAIL_TOKENS, State

if TYPE_CHECKING:
    from tests.vllm.idle_vllm import IdleVllm

KINDS = ("waits", "runs ahead")


@pytest.fixture(scope="session")
def config(model: Path) -> Any:
    """vLLM's, as our settings make it for the tiny model."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    return AsyncEngineArgs(**vllm_args.engine_args(settings(model), model)).create_engine_config()


def idle(config: Any, kind: str, *, on: bool = True, blocks: int = 400) -> IdleVllm:
    from tests.vllm.idle_vllm import IdleVllm

    return IdleVllm(config, kind, on=on, blocks=blocks)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_sessions_hear_the_same_and_their_lists_stay_short(
    config: Any, kind: str, seed: int
) -> None:
    names = ("a", "b", "c")
    benches = [idle(config, kind, on=on) for on in (True, False)]
    for bench in benches:
        random = Random(seed)
        for _ in range(400):
            # Some have two frames waiting, some none, and a step may come between.
            for name in random.choices(names, k=random.randrange(4)):
                bench.send(name)
            for _ in range(random.randrange(3)):
                bench.step()
        bench.settle()
    trimmed, plain = benches

    assert trimmed.tokens == plain.tokens
    assert [len(tokens) for tokens in trimmed.tokens.values()] == list(trimmed.frames.values())
    assert all(trimmed.features(name) <= TAIL_TOKENS + 3 for name in names)
    assert all(plain.features(name) == plain.frames[name] > 100 for name in names)
    assert trimmed.state.dropped > 0
    assert trimmed.state.lost == 0
    assert plain.state == State("it is switched off")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_a_session_that_ended(config: Any, kind: str) -> None:
    bench = idle(config, kind)
    for _ in range(100):
        bench.send("a")
        bench.settle()
    bench.abort("a")
    bench.settle()
    cache = bench.scheduler.encoder_cache_manager

    assert bench.scheduler.requests == {}
    assert cache.request_cached_ids == {}
    assert cache.num_freeable_slots == cache.cache_size
    assert bench.scheduler.get_kv_cache_usage() == 0


def aged(config: Any, kind: str, *, on: bool, blocks: int = 400) -> IdleVllm:
    """Session "old" has dropped features, "young" has not yet."""
    bench = idle(config, kind, on=on, blocks=blocks)
    for _ in range(60):
        bench.send("old")
        bench.settle()
    bench.send("young")
    bench.settle()
    return bench


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("on", [True, False])
def test_a_preempted_session_ends_in_an_error_if_it_was_trimmed(
    config: Any, kind: str, on: bool
) -> None:
    bench = aged(config, kind, on=on)
    said = {name: list(tokens) for name, tokens in bench.tokens.items()}
    for name in said:
        bench.send(name, max_tokens=4)
    bench.step()
    bench.step()
    bench.scheduler.reset_prefix_cache(reset_running_requests=True)
    said = {name: list(tokens) for name, tokens in bench.tokens.items()}
    bench.settle()

    assert bench.state.lost == on
    assert bench.ends["young"] == "length"
    assert len(bench.tokens["young"]) > len(said["young"])
    if on:
        assert bench.ends["old"] == "error"
        assert bench.tokens["old"] == said["old"]
        assert set(bench.scheduler.requests) == {"young"}
    else:
        assert bench.ends["old"] == "length"
        assert len(bench.tokens["old"]) > len(said["old"])


@pytest.mark.parametrize("blocks", [12, 14])
def test_so_does_one_that_vllm_preempts_by_itself(config: Any, blocks: int) -> None:
    """It does where it runs ahead: the old session's step is in flight when another one needs a
    block and there is none. The token that is in flight is not delivered beside the error."""
    bench = aged(config, "runs ahead", on=True, blocks=blocks)
    bench.send("young", max_tokens=200)
    said: list[int] = []
    for _ in range(200):
        if "old" in bench.scheduler.requests:
            said = list(bench.tokens["old"])
            if bench.waits_for_audio("old"):
                bench.send("old")
            bench.step()

    assert bench.ends == {"old": "error", "young": "length"}
    assert bench.tokens["old"] == said
    assert len(said) < bench.frames["old"]
    assert bench.state.lost == 1


# --- When it is on -------------------------------------------------------------------------------


def setup(**changes: Any) -> Any:
    """A configuration in which the plugin is on, but for the changes."""
    parts: dict[str, Any] = {
        "additional_config": {KEY: True},
        "architectures": [ARCHITECTURE],
        "enable_prefix_caching": False,
        "kv_transfer_config": None,
        "ec_transfer_config": None,
        "speculative_config": None,
    }
    parts |= changes
    return SimpleNamespace(
        model_config=SimpleNamespace(architectures=parts.pop("architectures")),
        cache_config=SimpleNamespace(enable_prefix_caching=parts.pop("enable_prefix_caching")),
        **parts,
    )


def test_it_is_on_only_in_what_it_was_tested_with() -> None:
    why_off = vllm_plugin.why_off

    assert why_off("0.32.0", setup()) == ""
    assert why_off("0.32.0+cu129", setup()) == ""
    assert "not tested with vllm 0.32.1" in why_off("0.32.1", setup())
    assert "not tested with vllm 0.33.0rc1" in why_off("0.33.0rc1", setup())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"additional_config": {}}, "switched off"),
        ({"additional_config": {KEY: False}}, "switched off"),
        ({"additional_config": object()}, "switched off"),
        ({"architectures": ["VoxtralForConditionalGeneration"]}, "the model is no Voxtral"),
        ({"architectures": None}, "the model is no Voxtral"),
        ({"enable_prefix_caching": True}, "prefix caching"),
        ({"kv_transfer_config": object()}, "kv_transfer_config"),
        ({"ec_transfer_config": object()}, "ec_transfer_config"),
        ({"speculative_config": object()}, "speculative_config"),
    ],
)
def test_it_is_off_for_a_reason(changes: dict[str, Any], reason: str) -> None:
    assert reason in vllm_plugin.why_off("0.32.0", setup(**changes))


def test_this_version_is_a_tested_one() -> None:
    import vllm

    assert vllm_plugin.why_off(vllm.__version__, setup()) == ""


def test_off_means_untouched_and_is_said_loudly_if_it_was_asked_for(
    config: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    monkeypatch.setattr("vllm.__version__", "0.99.0")
    bench = idle(config, "waits")
    methods = vars(bench.scheduler).keys() & vars(type(bench.scheduler)).keys()

    assert "not tested with vllm 0.99.0" in bench.state.why_off
    assert methods == set()
    assert {r.levelname for r in caplog.records if "Flat sessions" in r.message} == {"WARNING"}


@pytest.mark.parametrize("place", vllm_plugin.TOUCHED)
def test_it_is_off_in_a_vllm_that_lacks_what_it_touches(
    config: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    touched = {**vllm_plugin.TOUCHED, place: ("_no_such_thing",)}
    monkeypatch.setattr(vllm_plugin, "TOUCHED", touched)

    assert "has no _no_such_thing" in idle(config, "waits").state.why_off


def test_whatever_it_meets_vllm_starts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(logger: Any) -> None:
        raise ImportError("moved")

    monkeypatch.setattr(vllm_plugin, "_install", fail)
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    vllm_plugin.install()

    assert "this vllm is not as expected" in caplog.text


def test_the_setting_is_the_switch(model: Path) -> None:
    def switch(**env: str) -> Any:
        return vllm_args.engine_args(settings(model, **env), model)["additional_config"]

    assert switch() == {KEY: True}
    assert switch(VOXTRAL_FLAT_SESSIONS="false") == {KEY: False}
    others = '{"dtype": "bfloat16", "additional_config": {"theirs": 1}}'
    assert switch(VLLM_ENGINE_ARGS=others) == {KEY: True, "theirs": 1}
