"""Settings: their names and defaults, what each takes, and how every fault is reported at once."""

from __future__ import annotations

from importlib.metadata import entry_points

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxtral_actors.secret import Secret
from voxtral_actors.settings import Settings, SettingsError, describe, load

REQUIRED = {"VOXTRAL_API_KEY": "k", "MAX_CONCURRENT_CONNECTIONS": "100"}

# What a server shows that was given the required settings only.
DEFAULTS = {
    "VOXTRAL_HOST": "127.0.0.1",
    "VOXTRAL_PORT": "8000",
    "VOXTRAL_DRAIN_TIMEOUT_S": "30",
    "VOXTRAL_LOG_LEVEL": "info",
    "VOXTRAL_LOG_FORMAT": "text",
    "HF_TOKEN": "",
    "HF_ENDPOINT": "https://huggingface.co",
    "VOXTRAL_MODEL_ID": "mistralai/Voxtral-Mini-4B-Realtime-2602",
    "VOXTRAL_MODEL_DIR": "models/voxtral",
    "VOXTRAL_SERVED_MODEL_NAME": "",
    "VOXTRAL_TRANSCRIPTION_DELAY_MS": "400",
    "WS_IDLE_TIMEOUT_S": "150",
    "WS_MAX_CONNECTION_DURATION_S": "5400",
    "WS_MAX_MESSAGES_PER_WINDOW": "200",
    "WS_MESSAGE_WINDOW_SECONDS": "60",
    "WS_MAX_CANCELS_PER_WINDOW": "50",
    "WS_CANCEL_WINDOW_SECONDS": "60",
    "WS_MAX_MESSAGE_BYTES": "1048576",
    "WS_MAX_AUDIO_BACKLOG_S": "30",
    "WS_BACKPRESSURE_TIMEOUT_S": "30",
    "VOXTRAL_REPLAY_BUDGET_S": "60",
    "VOXTRAL_SEGMENT_S": "",
    "VOXTRAL_MUTE_S": "8",
    "WS_WRITE_DEADLINE_S": "10",
    "WS_CLOSE_GRACE_S": "5",
    "WS_MAX_BAD_MESSAGES": "100",
    "WS_ALLOWED_ORIGINS": "",
    "VLLM_GPU_MEMORY_UTILIZATION": "0.92",
    "VLLM_MAX_NUM_SEQS": "128",
    "VLLM_MAX_NUM_BATCHED_TOKENS": "4096",
    "VLLM_MAX_MODEL_LEN": "67500",
    "VLLM_KV_CACHE_DTYPE": "auto",
    "VLLM_ENFORCE_EAGER": "false",
    "VLLM_TOKENIZER_MODE": "mistral",
    "VLLM_CONFIG_FORMAT": "mistral",
    "VLLM_LOAD_FORMAT": "mistral",
    "VLLM_TENSOR_PARALLEL_SIZE": "1",
    "VLLM_DATA_PARALLEL_SIZE": "1",
    "VLLM_DATA_PARALLEL_BACKEND": "mp",
    "VLLM_COMPILATION_CONFIG": "",
    "VLLM_ENGINE_ARGS": "",
    "VOXTRAL_FLAT_SESSIONS": "true",
    "VOXTRAL_BATCH_AUDIO": "true",
}
INSTALLED = ", ".join(sorted(entry_points(group="voxtral_actors.engines").names))
VARIABLES = [field.metadata["env"] for field in attrs.fields(Settings)]


def problems(**env: str) -> list[str]:
    """What `load` finds wrong with these variables; the required ones are right if not given."""
    with pytest.raises(SettingsError) as caught:
        load(REQUIRED | env)
    return caught.value.problems


def outcome(env: dict[str, str]) -> Settings | SettingsError:
    try:
        return load(env)
    except SettingsError as error:
        return error


def shown(settings: Settings) -> dict[str, str]:
    return {name: value for name, value, _ in describe(settings)}


def test_defaults_are_as_documented() -> None:
    settings = shown(load(REQUIRED))

    assert settings.pop("VOXTRAL_API_KEY") == "********"
    assert settings.pop("MAX_CONCURRENT_CONNECTIONS") == "100"
    assert settings.pop("VOXTRAL_ENGINE") in {"vllm", "sphinx"}
    assert settings == DEFAULTS


def test_every_setting_has_a_help_text() -> None:
    assert all(meaning.endswith(".") for _, _, meaning in describe(load(REQUIRED)))


def test_an_empty_variable_is_an_unset_one() -> None:
    blank = dict.fromkeys(set(VARIABLES) - REQUIRED.keys(), "  ")

    assert load(REQUIRED | blank) == load(REQUIRED)


def test_what_is_shown_can_be_loaded_again() -> None:
    settings = load(
        REQUIRED
        | {
            "WS_ALLOWED_ORIGINS": "https://a.example, http://[::1]:3000",
            "VLLM_COMPILATION_CONFIG": '{"cudagraph_mode": "FULL"}',
            "VLLM_ENFORCE_EAGER": "Yes",
            "WS_IDLE_TIMEOUT_S": "0.5",
        }
    )

    assert load(shown(settings) | {"VOXTRAL_API_KEY": "k"}) == settings


def test_keys_are_a_list_and_spaces_around_them_are_no_part_of_them() -> None:
    settings = load(REQUIRED | {"VOXTRAL_API_KEY": " old key ,new"})

    assert [key.reveal() for key in settings.api_keys] == ["old key", "new"]


def test_the_clients_see_the_served_name_or_else_the_models_id() -> None:
    assert load(REQUIRED).model_name == "mistralai/Voxtral-Mini-4B-Realtime-2602"
    assert load(REQUIRED | {"VOXTRAL_SERVED_MODEL_NAME": "ears"}).model_name == "ears"


def test_a_command_that_serves_nobody_needs_no_key() -> None:
    settings = load(
        {"VOXTRAL_MODEL_DIR": "/srv/voxtral", **dict.fromkeys(REQUIRED, "")}, serving=False
    )

    assert (settings.api_keys, settings.max_connections) == ((), 0)
    assert settings.model_dir == "/srv/voxtral"
    assert load(REQUIRED, serving=False) == load(REQUIRED)


def test_p18_a_command_that_serves_nobody_refuses_wrong_settings_too() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"VOXTRAL_MODEL_DIRR": "/srv", "MAX_CONCURRENT_CONNECTIONS": "x"}, serving=False)

    assert [problem.split()[0] for problem in caught.value.problems] == [
        "MAX_CONCURRENT_CONNECTIONS",
        "VOXTRAL_MODEL_DIRR",
    ]


def test_secrets_are_the_keys_and_the_hub_token() -> None:
    settings = load(REQUIRED | {"VOXTRAL_API_KEY": "a,b", "HF_TOKEN": "c"})

    assert settings.secrets == (Secret("a"), Secret("b"), Secret("c"))
    assert load(REQUIRED).secrets == (Secret("k"),)


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("VOXTRAL_LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("VLLM_ENFORCE_EAGER", "1", "enforce_eager", True),
        ("VLLM_ENFORCE_EAGER", "off", "enforce_eager", False),
        ("VOXTRAL_PORT", "0", "port", 0),
        ("VOXTRAL_SEGMENT_S", "0", "segment_s", 0.0),
        ("VOXTRAL_SEGMENT_S", "5", "segment_s", 5.0),
        ("VOXTRAL_MUTE_S", "0", "mute_s", 0.0),
        ("VOXTRAL_TRANSCRIPTION_DELAY_MS", "2400", "transcription_delay_ms", 2400),
        ("WS_ALLOWED_ORIGINS", "*", "allowed_origins", ("*",)),
        ("WS_ALLOWED_ORIGINS", "app://-", "allowed_origins", ("app://-",)),
        ("VOXTRAL_ENGINE", "sphinx", "engine", "sphinx"),
        ("WS_IDLE_TIMEOUT_S", "1e3", "idle_timeout_s", 1000.0),
        ("HF_ENDPOINT", "http://[::1]:80/hub/", "hf_endpoint", "http://[::1]:80/hub/"),
    ],
)
def test_values_that_are_taken(name: str, text: str, field: str, value: object) -> None:
    assert getattr(load(REQUIRED | {name: text}), field) == value


WHOLE_1 = "a whole number, 1 or more"
WHOLE_0 = "a whole number, 0 or more"
SECONDS = "a number of seconds, 0.001 or more"
SECONDS_0 = "a number of seconds, 0 or more"
ADDRESS = "an address that begins with http:// or https://"
ORIGINS = "origins as scheme://host or scheme://host:port, or *, separated by commas"


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("MAX_CONCURRENT_CONNECTIONS", "0", WHOLE_1),
        ("MAX_CONCURRENT_CONNECTIONS", "many", WHOLE_1),
        ("VOXTRAL_PORT", "65536", "a whole number from 0 to 65535"),
        ("VOXTRAL_PORT", "80.5", "a whole number from 0 to 65535"),
        ("VOXTRAL_HOST", "a\tb", "a text of printable characters"),
        ("VOXTRAL_ENGINE", "vlm", f"one of the engines installed here: {INSTALLED}"),
        ("VOXTRAL_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("VOXTRAL_LOG_FORMAT", "xml", "one of text, json"),
        ("VOXTRAL_DRAIN_TIMEOUT_S", "soon", SECONDS),
        ("VOXTRAL_TRANSCRIPTION_DELAY_MS", "100", "a multiple of 80 from 80 to 2400"),
        ("VOXTRAL_TRANSCRIPTION_DELAY_MS", "0", "a multiple of 80 from 80 to 2400"),
        ("VOXTRAL_TRANSCRIPTION_DELAY_MS", "2480", "a multiple of 80 from 80 to 2400"),
        ("WS_IDLE_TIMEOUT_S", "nan", SECONDS_0),
        ("WS_IDLE_TIMEOUT_S", "inf", SECONDS_0),
        ("WS_IDLE_TIMEOUT_S", "1e999", SECONDS_0),
        ("WS_IDLE_TIMEOUT_S", "-1", SECONDS_0),
        ("WS_MESSAGE_WINDOW_SECONDS", "0", SECONDS),
        ("WS_MAX_BAD_MESSAGES", "-1", WHOLE_0),
        ("VOXTRAL_SEGMENT_S", "4.9", "0, or a number of seconds, 5 or more"),
        ("VOXTRAL_SEGMENT_S", "-300", "0, or a number of seconds, 5 or more"),
        ("VOXTRAL_MUTE_S", "1", "0, or a number of seconds from 2 to 30"),
        ("VOXTRAL_MUTE_S", "31", "0, or a number of seconds from 2 to 30"),
        ("WS_MAX_MESSAGE_BYTES", "1023", "a whole number from 1024 to 67108864"),
        ("HF_ENDPOINT", "huggingface.co", ADDRESS),
        ("HF_ENDPOINT", "https://", ADDRESS),
        ("HF_ENDPOINT", "https://a b", ADDRESS),
        ("WS_ALLOWED_ORIGINS", "example.com", ORIGINS),
        ("WS_ALLOWED_ORIGINS", "https://example.com/", ORIGINS),
        ("WS_ALLOWED_ORIGINS", "https://*.example.com", ORIGINS),
        ("WS_ALLOWED_ORIGINS", "https://example.com:", ORIGINS),
        ("WS_ALLOWED_ORIGINS", "https://a.example,,*", ORIGINS),
        ("WS_ALLOWED_ORIGINS", "null", ORIGINS),
        ("VLLM_GPU_MEMORY_UTILIZATION", "1.01", "a number from 0.05 to 1"),
        ("VLLM_GPU_MEMORY_UTILIZATION", "NaN", "a number from 0.05 to 1"),
        ("VLLM_KV_CACHE_DTYPE", "int4", "one of auto, fp8, fp8_e4m3, fp8_e5m2, bfloat16"),
        ("VLLM_ENFORCE_EAGER", "maybe", "true or false"),
        ("VLLM_DATA_PARALLEL_BACKEND", "dask", "one of mp, ray"),
        ("VLLM_COMPILATION_CONFIG", "3", "a JSON object"),
        ("VLLM_COMPILATION_CONFIG", "{mode: 3}", "a JSON object"),
    ],
)
def test_p18_a_fault_names_the_variable_the_value_and_what_is_allowed(
    name: str, text: str, allowed: str
) -> None:
    assert problems(**{name: text}) == [f"{name} is {text!r}; allowed: {allowed}."]


def test_p18_all_faults_come_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            {
                "VOXTRAL_API_KEY": "a,,b",
                "VOXTRAL_PORT": "http",
                "WS_CLOSE_GRACE_S": "30",
                "WS_IDLE_TIMEOUT": "3",
                "VOXTRAL_COLOUR": "red",
            }
        )

    assert str(caught.value) == (
        "VOXTRAL_API_KEY is a value that is not shown; allowed: one key or several, separated by"
        " commas, none of them empty, in printable ASCII.\n"
        "MAX_CONCURRENT_CONNECTIONS is required; allowed: a whole number, 1 or more. Connections"
        " open at once; one more is refused.\n"
        "VOXTRAL_PORT is 'http'; allowed: a whole number from 0 to 65535.\n"
        "WS_CLOSE_GRACE_S is 30; allowed: less than VOXTRAL_DRAIN_TIMEOUT_S, which is 30.\n"
        "VOXTRAL_COLOUR is no setting of this server. `voxtral-actors check-config --help` says"
        " where all are listed.\n"
        "WS_IDLE_TIMEOUT is no setting of this server. Did you mean WS_IDLE_TIMEOUT_S?"
    )


def test_p18_the_grace_of_a_close_must_fit_into_the_drain() -> None:
    assert problems(VOXTRAL_DRAIN_TIMEOUT_S="4.5") == [
        "WS_CLOSE_GRACE_S is 5; allowed: less than VOXTRAL_DRAIN_TIMEOUT_S, which is 4.5."
    ]
    assert load(REQUIRED | {"VOXTRAL_DRAIN_TIMEOUT_S": "5.5"}).drain_timeout_s == 5.5


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("VOXTRAL_API_KEYS", "Did you mean VOXTRAL_API_KEY?"),
        ("WS_API_KEY", "Did you mean VOXTRAL_API_KEY?"),
        ("VOXTRAL_MAX_CONCURRENT_CONNECTIONS", "Did you mean MAX_CONCURRENT_CONNECTIONS?"),
        ("ws_max_message_bytes", "Did you mean WS_MAX_MESSAGE_BYTES?"),
        ("WS_MAX_CANCELS", "Did you mean WS_MAX_CANCELS_PER_WINDOW?"),
        (
            "VOXTRAL_ACTORS_SERVICE_HOST",
            "Kubernetes adds it for a service: set enableServiceLinks: false in the pod.",
        ),
        (
            "VOXTRAL_ACTORS_PORT_8000_TCP_ADDR",
            "Kubernetes adds it for a service: set enableServiceLinks: false in the pod.",
        ),
    ],
)
def test_p18_an_unknown_name_is_a_fault_with_a_hint(name: str, hint: str) -> None:
    assert problems(**{name: "topsecret"}) == [f"{name} is no setting of this server. {hint}"]


def test_names_of_other_programs_are_theirs() -> None:
    others = {
        "VLLM_ATTENTION_BACKEND": "x",
        "HF_HOME": "/x",
        "PATH": "/bin",
        "WSL_DISTRO_NAME": "x",
        "VOXTRAL_URL": "ws://127.0.0.1:8000/ws",  # the client's
    }

    assert load(REQUIRED | others) == load(REQUIRED)


@pytest.mark.parametrize("keys", ["a,", ",a", "a,,b", ",", " , "])
def test_p18_an_empty_key_in_the_list_is_a_fault(keys: str) -> None:
    assert len(problems(VOXTRAL_API_KEY=keys)) == 1


def test_p18_a_long_value_is_cut_in_the_message() -> None:
    (problem,) = problems(VLLM_COMPILATION_CONFIG="[" * 100_000)

    assert problem == f"VLLM_COMPILATION_CONFIG is '{'[' * 64}…'; allowed: a JSON object."


@pytest.mark.parametrize("name", ["VOXTRAL_API_KEY", "HF_TOKEN"])
def test_p7_a_secret_is_not_shown_even_if_it_is_wrong(name: str) -> None:
    (problem,) = problems(**{name: "top\x00secret"})

    assert problem.startswith(f"{name} is a value that is not shown; allowed: ")
    assert "top" not in problem


@given(st.lists(st.text("abcdefgh", min_size=8), min_size=1, max_size=3), st.text("019 ,é\n"))
def test_p7_secrets_never_appear_in_what_is_printed(keys: list[str], wrong: str) -> None:
    env = REQUIRED | {"VOXTRAL_API_KEY": ",".join(keys), "HF_TOKEN": "hugged-face"}
    settings = load(env)
    fault = outcome(env | {"VOXTRAL_PORT": f"no {wrong}", "WS_MISPLACED": keys[0]})

    assert isinstance(fault, SettingsError)
    printed = [str(settings), repr(settings), repr(describe(settings)), str(fault), repr(fault)]
    assert not [text for text in printed for secret in [*keys, "hugged-face"] if secret in text]


values = st.text() | st.sampled_from(
    ["1", "0", "-1", "nan", "{}", "true", "a,b", "9" * 5000, "1e9"]
)


@given(st.dictionaries(st.sampled_from(VARIABLES) | st.text().map("WS_".__add__), values))
def test_p18_any_environment_makes_settings_or_a_settings_error(env: dict[str, str]) -> None:
    result = outcome(env)

    if isinstance(result, SettingsError):
        assert result.problems
        str(result).encode()  # printable, whatever the variables held
    else:
        assert shown(result).keys() == set(VARIABLES)


@given(st.sampled_from(VARIABLES), values)
def test_p18_any_value_beside_valid_ones_makes_settings_or_one_fault(name: str, text: str) -> None:
    result = outcome(REQUIRED | {name: text})

    if isinstance(result, SettingsError):
        assert len(result.problems) == 1
    else:
        repr(describe(result)).encode()
