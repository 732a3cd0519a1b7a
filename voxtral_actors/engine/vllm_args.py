"""The settings as arguments of vLLM's engine, and which of its arguments are not free; pure.

`VLLM_ENGINE_ARGS` passes any argument that has no setting of its own. The ones named in `OURS` have
a value that this engine depends on, so it is an error to set them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voxtral_actors.engine import vllm_plugin
from voxtral_actors.engine.port import spare_slots
from voxtral_actors.engine.registry import EngineSetupError
from voxtral_actors.settings import Settings

PLAIN = (
    "gpu_memory_utilization",
    "max_num_batched_tokens",
    "max_model_len",
    "kv_cache_dtype",
    "enforce_eager",
    "tokenizer_mode",
    "config_format",
    "load_format",
    "tensor_parallel_size",
    "data_parallel_size",
)
"""Settings that are an argument of the same name."""

WORKER_EXTENSION = "voxtral_actors.engine.vllm_worker.VoxtralWorker"

OURS: dict[str, str] = {
    "model": "VOXTRAL_MODEL_DIR names the model",
    "tokenizer": "it comes with the model",
    "served_model_name": "VOXTRAL_SERVED_MODEL_NAME is for that",
    "enable_prefix_caching": "no two streams begin with the same audio",
    "mm_processor_cache_gb": "no frame of audio comes twice, so a cache would only fill up",
    "stream_interval": "each token is the input of the next step",
    "skip_tokenizer_init": "the tokenizer says how the audio is cut",
    "worker_extension_cls": "it is this engine's own",
    "runner": "this engine transcribes",
    "logging_config": "VOXTRAL_LOG_LEVEL and VOXTRAL_LOG_FORMAT are for that",
    "disable_log_stats": "its figures are in /metrics",
}
"""Arguments that VLLM_ENGINE_ARGS must not set, each with the reason."""


def engine_args(settings: Settings, folder: Path) -> dict[str, Any]:
    """Arguments for `AsyncEngineArgs`, for the model in `folder`.

    Raises:
        EngineSetupError: the settings contradict each other, or this engine.
    """
    check(settings)
    args: dict[str, Any] = {name: getattr(settings, name) for name in PLAIN}
    args |= {
        # Those that roll are there twice for a moment.
        "max_num_seqs": settings.max_num_seqs + spare_slots(settings.max_num_seqs),
        "model": str(folder),
        "served_model_name": settings.model_name,
        "enable_prefix_caching": False,
        "mm_processor_cache_gb": 0,
        # Its own loggers only; ours is handed over beside these arguments.
        "disable_log_stats": True,
        # A bar that is drawn over and over is no line of a log.
        "use_tqdm_on_load": False,
        "worker_extension_cls": WORKER_EXTENSION,
        # Sampling is ours; vLLM would look for the file, and log a traceback when there is none.
        "generation_config": "vllm",
    }
    if settings.data_parallel_size > 1:
        args["data_parallel_backend"] = settings.data_parallel_backend
    if settings.compilation_config:
        args["compilation_config"] = settings.compilation_config
    # The plugin finds its switch here; it is one key among others that the operator may want.
    plugin = vllm_plugin.additional_config(on=settings.flat_sessions)
    extra = settings.engine_args.get("additional_config") or {}
    return args | settings.engine_args | {"additional_config": plugin | extra}


def check(settings: Settings) -> None:
    """Find what vLLM would refuse minutes later, or would take and must not.

    Raises:
        EngineSetupError: with every fault.
    """
    extra = settings.engine_args
    faults = [
        f"VLLM_ENGINE_ARGS must not set {name}: {OURS[name]}"
        for name in sorted(OURS.keys() & extra.keys())
    ]
    mode = settings.compilation_config.get("cudagraph_mode")
    if mode in ("FULL", 2):
        faults.append(
            "VLLM_COMPILATION_CONFIG sets cudagraph_mode FULL, which the model cannot run with;"
            " allowed: FULL_AND_PIECEWISE, FULL_DECODE_ONLY, PIECEWISE, NONE"
        )
    if settings.data_parallel_backend == "ray" and settings.data_parallel_size == 1:
        faults.append("VLLM_DATA_PARALLEL_BACKEND is ray, but VLLM_DATA_PARALLEL_SIZE is 1")
    if faults:
        raise EngineSetupError("; ".join(faults) + ".")
