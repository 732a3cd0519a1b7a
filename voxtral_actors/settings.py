"""The server's settings: frozen, checked as a whole, read from the environment here and only here.

Each field of `Settings` carries in its metadata the variable that sets it and what is allowed.
`load` converts and checks every variable and reports *all* faults in one `SettingsError`, each with
the variable, the value and what is allowed. A misspelt `WS_…` or `VOXTRAL_…` name is a fault too: a
typo must not silently mean the default. (Other prefixes belong to other programs: vLLM reads
`VLLM_…` variables of its own, so an unknown one of those says nothing.)

A number means seconds where the name ends in `_s` or `_seconds`; 0 turns a limit or timeout off
where its text says so.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, get_args, get_origin

import attrs
import cattrs

from voxtral_actors.secret import Secret

KvCacheDtype: TypeAlias = Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2", "bfloat16"]
Backend: TypeAlias = Literal["mp", "ray"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["text", "json"]

OWN_PREFIXES = ("WS_", "VOXTRAL_")


class SettingsError(Exception):
    """The environment does not make valid settings; `problems` holds one sentence a fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@attrs.frozen
class Rule:
    """What a value must satisfy beyond its type, in words and as a predicate."""

    allowed: str
    holds: Callable[[Any], bool]


def at_least(low: float) -> Rule:
    return Rule(f"a number of {low:g} or more", lambda value: math.isfinite(value) and value >= low)


def between(low: float, high: float) -> Rule:
    return Rule(f"a number from {low:g} to {high:g}", lambda value: low <= value <= high)


NOT_EMPTY = Rule("a text that is not empty", bool)
KEYS = Rule("one key or several, separated by commas, none of them empty", bool)
DELAY = Rule("a multiple of 80 from 80 to 2400", lambda ms: 80 <= ms <= 2400 and ms % 80 == 0)
JSON_OBJECT = Rule("a JSON object, or nothing", lambda value: isinstance(value, dict))


def setting(env: str, help: str, rule: Rule | None = None, default: Any = attrs.NOTHING) -> Any:  # noqa: A002 - what it is
    """A field of `Settings`: the variable, what it does, what is allowed, the default."""
    kwargs: dict[str, Any] = {"metadata": {"env": env, "help": help, "rule": rule}}
    if callable(default) or isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        kwargs["factory" if callable(default) else "default"] = default
    else:
        kwargs["default"] = default
    return attrs.field(**kwargs)


def default_engine() -> str:
    """`vllm` where it is installed, else `sphinx` (found by import: its CPU build has another name)."""
    return "vllm" if importlib.util.find_spec("vllm") else "sphinx"


@attrs.frozen(kw_only=True)
class Settings:
    """The effective settings. PEP 8 names here, the environment's names in the metadata."""

    # Required.
    api_keys: tuple[Secret, ...] = setting(
        "VOXTRAL_API_KEY", "Keys that clients may use, separated by commas.", KEYS
    )
    max_connections: int = setting(
        "MAX_CONCURRENT_CONNECTIONS", "Connections open at the same time.", at_least(1)
    )

    # Server.
    host: str = setting("VOXTRAL_HOST", "Address to listen on.", NOT_EMPTY, "127.0.0.1")
    port: int = setting(
        "VOXTRAL_PORT", "TCP port; 0 takes a free one.", between(0, 65535), 8000
    )
    engine: str = setting(
        "VOXTRAL_ENGINE", "Engine that transcribes.", NOT_EMPTY, default_engine
    )
    drain_timeout_s: float = setting(
        "VOXTRAL_DRAIN_TIMEOUT_S",
        "From SIGTERM to exit, at most; running utterances may finish in it.",
        at_least(1),
        30.0,
    )
    log_level: LogLevel = setting("VOXTRAL_LOG_LEVEL", "Least severe level logged.", None, "info")
    log_format: LogFormat = setting("VOXTRAL_LOG_FORMAT", "How log lines look.", None, "text")

    # Model.
    hf_token: Secret | None = setting(
        "HF_TOKEN", "Token for the model hub, if the model needs one.", None, None
    )
    model_id: str = setting(
        "VOXTRAL_MODEL_ID",
        "Model on the hub.",
        NOT_EMPTY,
        "mistralai/Voxtral-Mini-4B-Realtime-2602",
    )
    model_dir: str = setting(
        "VOXTRAL_MODEL_DIR", "Folder that holds the model's files.", NOT_EMPTY, "models/voxtral"
    )
    served_model_name: str = setting(
        "VOXTRAL_SERVED_MODEL_NAME", "Name that clients see; the model's id if unset.", None, ""
    )
    transcription_delay_ms: int = setting(
        "VOXTRAL_TRANSCRIPTION_DELAY_MS", "How far text trails the audio.", DELAY, 400
    )

    # One WebSocket.
    idle_timeout_s: float = setting(
        "WS_IDLE_TIMEOUT_S", "Silence of both sides before close 4000; 0: off.", at_least(0), 150.0
    )
    max_duration_s: float = setting(
        "WS_MAX_CONNECTION_DURATION_S",
        "Age of a connection at close 4003; 0: off.",
        at_least(0),
        5400.0,
    )
    max_messages_per_window: int = setting(
        "WS_MAX_MESSAGES_PER_WINDOW", "Messages in one window; 0: no limit.", at_least(0), 200
    )
    message_window_s: float = setting(
        "WS_MESSAGE_WINDOW_SECONDS", "Length of the message window.", at_least(0.001), 60.0
    )
    max_cancels_per_window: int = setting(
        "WS_MAX_CANCELS_PER_WINDOW", "Cancels in one window; 0: no limit.", at_least(0), 50
    )
    cancel_window_s: float = setting(
        "WS_CANCEL_WINDOW_SECONDS", "Length of the cancel window.", at_least(0.001), 60.0
    )
    max_message_bytes: int = setting(
        "WS_MAX_MESSAGE_BYTES",
        "Largest message; a larger one is close 1009.",
        between(1024, 64 * 2**20),
        1_048_576,
    )
    max_audio_backlog_s: float = setting(
        "WS_MAX_AUDIO_BACKLOG_S",
        "Audio of an utterance that may wait for the engine before reading pauses.",
        at_least(0.1),
        30.0,
    )
    backpressure_timeout_s: float = setting(
        "WS_BACKPRESSURE_TIMEOUT_S",
        "Audio waits and the engine makes no progress for this long: the utterance ends in an"
        " error; 0: wait for ever.",
        at_least(0),
        30.0,
    )
    write_deadline_s: float = setting(
        "WS_WRITE_DEADLINE_S",
        "One message not taken by the client in this time: the connection is cut (4008).",
        at_least(0.1),
        10.0,
    )
    close_grace_s: float = setting(
        "WS_CLOSE_GRACE_S",
        "Time for the last text before a close by duration or drain.",
        at_least(0),
        5.0,
    )
    max_bad_messages: int = setting(
        "WS_MAX_BAD_MESSAGES",
        "Messages that cannot be acted on before close 4009; 0: no limit.",
        at_least(0),
        100,
    )
    allowed_origins: tuple[str, ...] = setting(
        "WS_ALLOWED_ORIGINS",
        "Origins that browsers may connect from, separated by commas; * allows all. Unset: only the"
        " server's own page.",
        None,
        (),
    )

    # vLLM.
    gpu_memory_utilization: float = setting(
        "VLLM_GPU_MEMORY_UTILIZATION", "Share of GPU memory to use.", between(0.05, 1), 0.92
    )
    max_num_seqs: int = setting(
        "VLLM_MAX_NUM_SEQS", "Utterances at the engine at once.", at_least(1), 128
    )
    max_num_batched_tokens: int = setting(
        "VLLM_MAX_NUM_BATCHED_TOKENS", "Tokens in one engine step.", at_least(64), 4096
    )
    max_model_len: int = setting(
        "VLLM_MAX_MODEL_LEN", "Tokens of one stream, 80 ms each.", at_least(256), 67_500
    )
    kv_cache_dtype: KvCacheDtype = setting(
        "VLLM_KV_CACHE_DTYPE", "Type of the KV cache.", None, "auto"
    )
    enforce_eager: bool = setting(
        "VLLM_ENFORCE_EAGER", "Run without CUDA graphs.", None, False
    )
    tokenizer_mode: str = setting("VLLM_TOKENIZER_MODE", "Tokenizer.", NOT_EMPTY, "mistral")
    config_format: str = setting("VLLM_CONFIG_FORMAT", "Model config.", NOT_EMPTY, "mistral")
    load_format: str = setting("VLLM_LOAD_FORMAT", "Weight files.", NOT_EMPTY, "mistral")
    tensor_parallel_size: int = setting(
        "VLLM_TENSOR_PARALLEL_SIZE", "GPUs that share one model.", at_least(1), 1
    )
    data_parallel_size: int = setting(
        "VLLM_DATA_PARALLEL_SIZE", "Copies of the model.", at_least(1), 1
    )
    data_parallel_backend: Backend = setting(
        "VLLM_DATA_PARALLEL_BACKEND", "What starts the copies.", None, "mp"
    )
    compilation_config: dict[str, Any] = setting(
        "VLLM_COMPILATION_CONFIG", "vLLM's compilation config.", JSON_OBJECT, dict
    )

    @property
    def model_name(self) -> str:
        """The name that clients see."""
        return self.served_model_name or self.model_id


def _words(kind: Any) -> str:
    """What is allowed for a type, in words."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a text")


def _to_bool(text: str, _: Any) -> bool:
    match text.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError(text)


def _to_float(text: str, _: Any) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _to_list(text: str, kind: Any) -> Any:
    items = [item.strip() for item in text.split(",")]
    if items[-1] == "":  # a trailing comma, or nothing at all
        items.pop()
    if not all(items):
        raise ValueError("an empty item")
    return tuple(_converter.structure(item, get_args(kind)[0]) for item in items)


_converter = cattrs.Converter()
_converter.register_structure_hook(int, lambda text, _: int(text))
_converter.register_structure_hook(float, _to_float)
_converter.register_structure_hook(bool, _to_bool)
_converter.register_structure_hook(Secret, lambda text, _: Secret(text))
_converter.register_structure_hook(Secret | None, lambda text, _: Secret(text))
_converter.register_structure_hook_func(lambda kind: get_origin(kind) is tuple, _to_list)
_converter.register_structure_hook_func(
    lambda kind: get_origin(kind) is dict, lambda text, _: json.loads(text)
)


def load(env: Mapping[str, str]) -> Settings:
    """Make `Settings` from environment variables; an empty value counts as unset.

    Raises:
        SettingsError: with every fault found, in the order of the fields.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    types = attrs.resolve_types(Settings)
    for field in attrs.fields(types):
        name, rule = field.metadata["env"], field.metadata["rule"]
        allowed = rule.allowed if rule else _words(field.type)
        raw = env.get(name, "").strip()
        if not raw:
            if field.default is attrs.NOTHING:
                problems.append(f"{name} is required: {allowed}. {field.metadata['help']}")
            continue
        try:
            value = _converter.structure(raw, field.type)
            if rule and not rule.holds(value):
                raise ValueError(raw)
        except (ValueError, TypeError, cattrs.errors.CattrsError):
            secret = "Secret" in str(field.type)
            shown = "a value that is not shown" if secret else repr(raw)
            problems.append(f"{name} is {shown}; allowed: {allowed}.")
        else:
            values[field.name] = value
    problems += _unknown(env, {field.metadata["env"] for field in attrs.fields(types)})
    if problems:
        raise SettingsError(problems)
    return Settings(**values)


def _unknown(env: Mapping[str, str], known: set[str]) -> list[str]:
    from difflib import get_close_matches

    problems = []
    for name in sorted(env):
        if name.startswith(OWN_PREFIXES) and name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else " `voxtral-actors check-config` lists them."
            problems.append(f"{name} is no setting of this server.{hint}")
    return problems


def describe(settings: Settings) -> list[tuple[str, str, str]]:
    """The effective settings as (variable, value, help) rows; secrets are masked by `Secret`."""
    rows = []
    for field in attrs.fields(Settings):
        value = getattr(settings, field.name)
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        elif isinstance(value, dict):
            value = json.dumps(value) if value else ""
        elif isinstance(value, bool):
            value = str(value).lower()
        elif isinstance(value, float):
            value = f"{value:g}"
        rows.append((field.metadata["env"], "" if value is None else str(value), field.metadata["help"]))
    return rows
