"""The settings as arguments of vLLM, the parallel ones among them; vLLM is not needed for it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from voxtral_actors.engine.registry import EngineSetupError
from voxtral_actors.engine.vllm_args import OURS, WORKER_EXTENSION, engine_args
from voxtral_actors.settings import SettingsError, load

FOLDER = Path("/srv/voxtral")


def args(**env: str) -> dict[str, Any]:
    required = {"VOXTRAL_API_KEY": "any", "MAX_CONCURRENT_CONNECTIONS": "1"}
    return engine_args(load({**required, **env}), FOLDER)


def test_the_defaults_are_all_there_is() -> None:
    assert args() == {
        "model": "/srv/voxtral",
        "served_model_name": "mistralai/Voxtral-Mini-4B-Realtime-2602",
        "gpu_memory_utilization": 0.92,
        "max_num_seqs": 128 + 8,  # spare ones, for streams that roll
        "max_num_batched_tokens": 4096,
        "max_model_len": 67_500,
        "kv_cache_dtype": "auto",
        "enforce_eager": False,
        "tokenizer_mode": "mistral",
        "config_format": "mistral",
        "load_format": "mistral",
        "tensor_parallel_size": 1,
        "data_parallel_size": 1,
        "enable_prefix_caching": False,
        "mm_processor_cache_gb": 0,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "worker_extension_cls": WORKER_EXTENSION,
        "generation_config": "vllm",
        "additional_config": {"voxtral_flat_sessions": True},
    }


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("VLLM_GPU_MEMORY_UTILIZATION", "0.5", "gpu_memory_utilization", 0.5),
        ("VLLM_MAX_NUM_SEQS", "7", "max_num_seqs", 8),
        ("VLLM_MAX_NUM_BATCHED_TOKENS", "512", "max_num_batched_tokens", 512),
        ("VLLM_MAX_MODEL_LEN", "4096", "max_model_len", 4096),
        ("VLLM_KV_CACHE_DTYPE", "fp8", "kv_cache_dtype", "fp8"),
        ("VLLM_ENFORCE_EAGER", "true", "enforce_eager", True),
        ("VLLM_TOKENIZER_MODE", "auto", "tokenizer_mode", "auto"),
        ("VLLM_CONFIG_FORMAT", "hf", "config_format", "hf"),
        ("VLLM_LOAD_FORMAT", "dummy", "load_format", "dummy"),
        ("VLLM_TENSOR_PARALLEL_SIZE", "4", "tensor_parallel_size", 4),
        ("VLLM_DATA_PARALLEL_SIZE", "2", "data_parallel_size", 2),
        ("VLLM_DATA_PARALLEL_SIZE", "2", "data_parallel_backend", "mp"),
        ("VOXTRAL_SERVED_MODEL_NAME", "ours", "served_model_name", "ours"),
        ("VLLM_ENGINE_ARGS", '{"dtype": "float16"}', "dtype", "float16"),
        (
            "VLLM_COMPILATION_CONFIG",
            '{"cudagraph_mode": "FULL_AND_PIECEWISE"}',
            "compilation_config",
            {"cudagraph_mode": "FULL_AND_PIECEWISE"},
        ),
    ],
)
def test_each_setting_becomes_its_argument(
    variable: str, text: str, name: str, value: object
) -> None:
    assert args(**{variable: text})[name] == value


def test_the_workers_extension_is_there() -> None:
    module, _, name = WORKER_EXTENSION.rpartition(".")

    assert callable(getattr(import_module(module), name))


def test_ray_starts_the_copies() -> None:
    made = args(
        VLLM_DATA_PARALLEL_SIZE="4",
        VLLM_DATA_PARALLEL_BACKEND="ray",
        VLLM_TENSOR_PARALLEL_SIZE="2",
        VLLM_ENGINE_ARGS='{"data_parallel_size_local": 2, "data_parallel_address": "10.0.0.1"}',
    )

    assert made["data_parallel_backend"] == "ray"
    assert (made["data_parallel_size"], made["tensor_parallel_size"]) == (4, 2)
    assert made["data_parallel_size_local"] == 2
    assert made["data_parallel_address"] == "10.0.0.1"


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_the_engine_depends_on_cannot_be_set(name: str) -> None:
    with pytest.raises(EngineSetupError, match=f"must not set {name}: "):
        args(VLLM_ENGINE_ARGS=f'{{"{name}": 1}}')


@pytest.mark.parametrize(
    ("env", "fault"),
    [
        ({"VLLM_COMPILATION_CONFIG": '{"cudagraph_mode": "FULL"}'}, "cudagraph_mode FULL"),
        ({"VLLM_DATA_PARALLEL_BACKEND": "ray"}, "VLLM_DATA_PARALLEL_SIZE is 1"),
    ],
)
def test_what_vllm_would_refuse_is_refused_before_it_starts(
    env: dict[str, str], fault: str
) -> None:
    with pytest.raises(EngineSetupError, match=fault):
        args(**env)


def test_a_setting_is_not_set_twice() -> None:
    with pytest.raises(SettingsError) as error:
        args(VLLM_ENGINE_ARGS='{"max_model_len": 1000, "dtype": "auto"}')

    allowed = "what has no variable, as VLLM_MAX_MODEL_LEN is."
    assert error.value.problems == [f"VLLM_ENGINE_ARGS sets max_model_len; allowed: {allowed}"]
