"""The server's settings: frozen, checked as a whole, made from environment variables here only.

Each field of `Settings` has a type that says what is allowed (`setting_types`) and, in its
metadata, the variable that sets it. `load` reports *all* faults in one `SettingsError`, each with
the variable, the value and what is allowed. A misspelt `WS_…` or `VOXTRAL_…` name is a fault too: a
typo must not silently mean the default. (Other prefixes belong to other programs: vLLM reads
`VLLM_…` variables of its own, so an unknown one of those says nothing.)

A number means seconds where the name ends in `_s`. 0 turns a limit or timeout off where its text
says so. A secret's value is never shown, not even when it is wrong.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeAlias

import attrs
import msgspec

from voxtral_actors import setting_types as kinds
from voxtral_actors.secret import Secret

KvCacheDtype: TypeAlias = Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2", "bfloat16"]
ParallelBackend: TypeAlias = Literal["mp", "ray"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["text", "json"]

OWN_PREFIXES = ("WS_", "VOXTRAL_")
CLIENT_NAMES = {"VOXTRAL_URL"}  # for `transcribe`, `listen` and `top`, in the same shell perhaps

# What Kubernetes adds to every container for a service whose name begins like our prefixes.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_\d+_(TCP|UDP))?(_\w+)?$")


class SettingsError(Exception):
    """The environment does not make valid settings; `problems` holds one sentence a fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def setting(env: str, help_text: str, default: Any = attrs.NOTHING) -> Any:
    """A field: its variable, what it does, its default (none: required; callable: makes it)."""
    metadata = {"env": env, "help": help_text}
    if callable(default):
        return attrs.field(factory=default, metadata=metadata)
    return attrs.field(default=default, metadata=metadata)


def default_engine() -> str:
    """`vllm` if it can be imported (its CPU build has another distribution name), else `sphinx`."""
    return "vllm" if importlib.util.find_spec("vllm") else "sphinx"


@attrs.frozen(kw_only=True)
class Settings:
    """The effective settings."""

    api_keys: kinds.Keys = setting("VOXTRAL_API_KEY", "Keys clients may use; several, to rotate.")
    max_connections: kinds.Count = setting(
        "MAX_CONCURRENT_CONNECTIONS", "Connections open at once; one more is refused."
    )

    # Server.
    host: kinds.Text = setting("VOXTRAL_HOST", "Address to listen on.", "127.0.0.1")
    port: kinds.Port = setting("VOXTRAL_PORT", "TCP port to listen on; 0: any free one.", 8000)
    engine: kinds.Text = setting(
        "VOXTRAL_ENGINE", "What transcribes; unset: vllm if installed, else sphinx.", default_engine
    )
    drain_timeout_s: kinds.Seconds = setting(
        "VOXTRAL_DRAIN_TIMEOUT_S",
        "From SIGTERM to exit at most; utterances may finish in it.",
        30.0,
    )
    log_level: LogLevel = setting("VOXTRAL_LOG_LEVEL", "Least severe level that is logged.", "info")
    log_format: LogFormat = setting(
        "VOXTRAL_LOG_FORMAT", "Log lines for people or as JSON.", "text"
    )

    # Model.
    hf_token: kinds.Key | None = setting("HF_TOKEN", "Token for the model hub; recommended.", None)
    hf_endpoint: kinds.Address = setting(
        "HF_ENDPOINT", "The model hub, or a mirror of it.", "https://huggingface.co"
    )
    model_id: kinds.Text = setting(
        "VOXTRAL_MODEL_ID", "Model on the hub.", "mistralai/Voxtral-Mini-4B-Realtime-2602"
    )
    model_dir: kinds.Text = setting(
        "VOXTRAL_MODEL_DIR", "Folder of the model's files.", "models/voxtral"
    )
    served_model_name: kinds.Text = setting(
        "VOXTRAL_SERVED_MODEL_NAME", "Model name that clients see; unset: the model's id.", ""
    )
    transcription_delay_ms: kinds.Delay = setting(
        "VOXTRAL_TRANSCRIPTION_DELAY_MS", "How far text trails audio; more is more accurate.", 400
    )

    # One connection.
    idle_timeout_s: kinds.SecondsOrOff = setting(
        "WS_IDLE_TIMEOUT_S", "No message and no text for this long: close 4000; 0: off.", 150.0
    )
    max_duration_s: kinds.SecondsOrOff = setting(
        "WS_MAX_CONNECTION_DURATION_S", "Open for this long: close 4003; 0: off.", 5400.0
    )
    max_messages_per_window: kinds.CountOrOff = setting(
        "WS_MAX_MESSAGES_PER_WINDOW", "Messages in one window, audio apart; 0: no limit.", 200
    )
    message_window_s: kinds.Seconds = setting(
        "WS_MESSAGE_WINDOW_SECONDS", "Length of the message window.", 60.0
    )
    max_cancels_per_window: kinds.CountOrOff = setting(
        "WS_MAX_CANCELS_PER_WINDOW", "Cancels in one window; 0: no limit.", 50
    )
    cancel_window_s: kinds.Seconds = setting(
        "WS_CANCEL_WINDOW_SECONDS", "Length of the cancel window.", 60.0
    )
    max_message_bytes: Annotated[int, kinds.between(1024, 2**26, "a whole number")] = setting(
        "WS_MAX_MESSAGE_BYTES", "A larger message: close 1009.", 2**20
    )
    max_audio_backlog_s: kinds.LongSeconds = setting(
        "WS_MAX_AUDIO_BACKLOG_S", "Audio that may wait for the engine before reading pauses.", 30.0
    )
    backpressure_timeout_s: kinds.SecondsOrOff = setting(
        "WS_BACKPRESSURE_TIMEOUT_S",
        "Reading is paused and the engine stands still for this long: the utterance ends in an"
        " error; 0: never.",
        30.0,
    )
    replay_budget_s: kinds.SecondsOrOff = setting(
        "VOXTRAL_REPLAY_BUDGET_S",
        "Lost engine: utterances wait so long to be heard again; 0: end in an error.",
        60.0,
    )
    segment_s: kinds.SegmentSeconds | None = setting(
        "VOXTRAL_SEGMENT_S",
        "Length of an utterance's engine streams, ended in a pause; 0: one for all; unset: 300 with"
        " vllm, 0 with sphinx.",
        None,
    )
    mute_s: kinds.MuteSeconds = setting(
        "VOXTRAL_MUTE_S", "Speech without any text that brings a new stream, in vllm; 0: off.", 8.0
    )
    write_deadline_s: kinds.Seconds = setting(
        "WS_WRITE_DEADLINE_S", "Client does not take a message for this long: close 4008.", 10.0
    )
    close_grace_s: kinds.SecondsOrOff = setting(
        "WS_CLOSE_GRACE_S", "For the last text before a close by duration or drain.", 5.0
    )
    max_bad_messages: kinds.CountOrOff = setting(
        "WS_MAX_BAD_MESSAGES", "Messages in error before close 4009; 0: no limit.", 100
    )
    allowed_origins: kinds.Origins = setting(
        "WS_ALLOWED_ORIGINS", "Pages that may connect; * all, unset: the server's own.", ()
    )

    # vLLM.
    gpu_memory_utilization: Annotated[float, kinds.between(0.05, 1)] = setting(
        "VLLM_GPU_MEMORY_UTILIZATION", "Share of GPU memory to use.", 0.92
    )
    max_num_seqs: kinds.Count = setting("VLLM_MAX_NUM_SEQS", "Utterances decoded at once.", 128)
    max_num_batched_tokens: kinds.Count = setting(
        "VLLM_MAX_NUM_BATCHED_TOKENS", "Tokens in one engine step.", 4096
    )
    max_model_len: kinds.Count = setting(
        "VLLM_MAX_MODEL_LEN", "Tokens of one stream, 80 ms of audio each.", 67_500
    )
    kv_cache_dtype: KvCacheDtype = setting("VLLM_KV_CACHE_DTYPE", "Type of the KV cache.", "auto")
    enforce_eager: kinds.Flag = setting("VLLM_ENFORCE_EAGER", "Run without CUDA graphs.", False)
    tokenizer_mode: kinds.Text = setting("VLLM_TOKENIZER_MODE", "Kind of tokenizer.", "mistral")
    config_format: kinds.Text = setting("VLLM_CONFIG_FORMAT", "Kind of model config.", "mistral")
    load_format: kinds.Text = setting("VLLM_LOAD_FORMAT", "Kind of weight files.", "mistral")
    tensor_parallel_size: kinds.Count = setting(
        "VLLM_TENSOR_PARALLEL_SIZE", "GPUs that share one copy of the model.", 1
    )
    data_parallel_size: kinds.Count = setting("VLLM_DATA_PARALLEL_SIZE", "Copies of the model.", 1)
    data_parallel_backend: ParallelBackend = setting(
        "VLLM_DATA_PARALLEL_BACKEND", "What starts the copies.", "mp"
    )
    compilation_config: kinds.JsonObject = setting(
        "VLLM_COMPILATION_CONFIG", "vLLM's compilation config; unset: vLLM's own.", dict
    )
    flat_sessions: kinds.Flag = setting(
        "VOXTRAL_FLAT_SESSIONS", "Keep steps of old streams fast, by a plugin in vLLM.", True
    )
    batch_audio: kinds.Flag = setting(
        "VOXTRAL_BATCH_AUDIO", "Take the audio of all streams of a step at once, in vLLM.", True
    )
    engine_args: kinds.JsonObject = setting(
        "VLLM_ENGINE_ARGS", "Any other argument of vLLM's engine, by its Python name.", dict
    )

    @property
    def model_name(self) -> str:
        """The name that clients see."""
        return self.served_model_name or self.model_id

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Everything that must never be shown."""
        return self.api_keys if self.hf_token is None else (*self.api_keys, self.hf_token)


attrs.resolve_types(Settings)
_FIELDS = attrs.fields_dict(Settings)


# What the required settings are for a command that serves nobody.
_NOT_SERVING: dict[str, Any] = {"api_keys": (), "max_connections": 0}


def load(env: Mapping[str, str], *, serving: bool = True) -> Settings:
    """Make `Settings` from variables; an empty value counts as unset.

    Without `serving` the required ones may be unset: then there is no key and no connection.

    Raises:
        SettingsError: with every fault: of single values, of values together, of unknown names.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    for field in _FIELDS.values():
        name, allowed = field.metadata["env"], kinds.words(field.type)
        if text := env.get(name, "").strip():
            try:
                values[field.name] = kinds.parse(text, field.type)
            except (ValueError, RecursionError):
                problems.append(f"{name} is {kinds.quote(text, field.type)}; allowed: {allowed}.")
        elif field.default is not attrs.NOTHING:
            continue
        elif not serving:
            values[field.name] = _NOT_SERVING[field.name]
        else:
            problems.append(f"{name} is required; allowed: {allowed}. {field.metadata['help']}")
    problems += _contradictions(values)
    problems += _unknown(env, {field.metadata["env"] for field in _FIELDS.values()})
    if problems:
        raise SettingsError(problems)
    return Settings(**values)


def _contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """Faults of values that are of the right type: against each other, or against the machine."""
    if (engine := values.get("engine")) is not None:
        try:
            kinds.find_engine(engine)
        except ValueError as error:
            yield str(error)
    for name in values.get("engine_args", ()):
        if name in _FIELDS and (own := _FIELDS[name].metadata["env"]).startswith("VLLM_"):
            yield f"VLLM_ENGINE_ARGS sets {name}; allowed: what has no variable, as {own} is."
    grace, drain = (
        values.get(name, _FIELDS[name].default) for name in ("close_grace_s", "drain_timeout_s")
    )
    if grace >= drain:
        allowed = f"less than VOXTRAL_DRAIN_TIMEOUT_S, which is {drain:g}"
        yield f"WS_CLOSE_GRACE_S is {grace:g}; allowed: {allowed}."


def _unknown(env: Mapping[str, str], known: set[str]) -> Iterator[str]:
    """Names that look like ours and are not. Their values may be misplaced secrets: not shown."""
    # A misspelt name may have lost its prefix or got another one, so both forms are compared.
    names = {form: name for name in known for form in (name, name.partition("_")[2])}
    for name in sorted(env):
        if name in known | CLIENT_NAMES or not name.upper().startswith(OWN_PREFIXES):
            continue
        if _SERVICE_LINK.search(name):
            hint = "Kubernetes adds it for a service: set enableServiceLinks: false in the pod."
        elif close := get_close_matches(name.upper().partition("_")[2], names, n=1):
            hint = f"Did you mean {names[close[0]]}?"
        else:
            hint = "`voxtral-actors check-config --help` says where all are listed."
        yield f"{name if name.isprintable() else ascii(name)} is no setting of this server. {hint}"


def describe(settings: Settings) -> list[tuple[str, str, str]]:
    """The effective settings as (variable, value, help) rows; `Secret` masks itself."""
    return [
        (field.metadata["env"], _text(getattr(settings, field.name)), field.metadata["help"])
        for field in _FIELDS.values()
    ]


def _text(value: Any) -> str:
    """A value as it would stand in a variable; nothing where it is unset."""
    if value is None or value == {}:
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool | dict):
        return msgspec.json.encode(value).decode()
    return f"{value:.10g}" if isinstance(value, float) else str(value)
