"""Fetching a model from a stand-in for the hub that does everything wrong, one thing at a time.

Real sockets, so time is real: timeouts are short. A folder is judged by its bytes, not by what
`fetch` says of it.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

pytest.importorskip("huggingface_hub", reason="the vllm extra is not installed")

from tests.engine import hub as standin
from tests.engine.hub import LIST, Hub, answers, sends
from tests.engine.snapshot_harness import (
    FILES,
    HASTY,
    NEEDED,
    NEEDED_FILES,
    WEIGHTS,
    failure,
    fetched,
    held,
    hidden,
    made,
)
from voxtral_actors.engine import modelfolder
from voxtral_actors.engine.modelfolder import (
    Manifest,
    choose,
)
from voxtral_actors.engine.patience import Progress
from voxtral_actors.engine.snapshot import fetch
from voxtral_actors.settings import Settings


def test_only_the_needed_files_come_and_the_manifest_says_which(
    hub: Hub, settings: Settings
) -> None:
    folder = fetched(settings)

    assert held(folder) == NEEDED_FILES
    assert hidden(folder) == {modelfolder.MANIFEST, modelfolder.LOCK}
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert {file.name for file, _ in manifest.files} == NEEDED


def test_a_complete_folder_needs_no_network(hub: Hub, settings: Settings) -> None:
    fetched(settings)
    hub.requests.clear()
    nowhere = attrs.evolve(settings, hf_endpoint="http://127.0.0.1:1")

    assert fetched(nowhere) == fetch(nowhere, full=True, patience=HASTY)
    assert hub.requests == []


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(hub: Hub, tmp_path: Path) -> None:
    fetched(made(hub, tmp_path, HF_TOKEN="hf_secret"))

    tokens = {what: token for what, _, token in hub.requests}
    assert tokens[LIST] == tokens["params.json"] == "hf_secret"
    assert tokens[WEIGHTS] is None


def test_progress_ends_at_all_bytes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxtral_actors.limits.HUB_REPORT_S", 0.0)
    seen: list[Progress] = []

    fetch(settings, progress=seen.append, patience=HASTY)

    loading = [report for report in seen if report.doing == "downloading"]
    total = sum(len(FILES[name]) for name in NEEDED)
    assert (loading[-1].done, loading[-1].total, loading[-1].file) == (total, total, WEIGHTS)
    assert [report.done for report in loading] == sorted(report.done for report in loading)


@pytest.mark.parametrize(
    ("load_format", "weights"),
    [
        ("mistral", {WEIGHTS}),
        ("auto", {WEIGHTS}),
        ("safetensors", {"model.safetensors"}),
        ("dummy", set()),
    ],
)
def test_the_load_format_decides_on_the_weights(
    hub: Hub, tmp_path: Path, load_format: str, weights: set[str]
) -> None:
    folder = fetched(made(hub, tmp_path, VLLM_LOAD_FORMAT=load_format))

    assert held(folder).keys() == {"params.json", "config.json", "tekken.json"} | weights


def test_another_load_format_takes_the_weights_of_the_first_one_away(
    hub: Hub, tmp_path: Path
) -> None:
    fetched(made(hub, tmp_path, VLLM_LOAD_FORMAT="auto"))
    hub.files["consolidated-2.safetensors"] = hub.files.pop(WEIGHTS)
    (tmp_path / "model" / WEIGHTS).write_bytes(b"damaged")

    folder = fetched(made(hub, tmp_path, VLLM_LOAD_FORMAT="auto"))

    assert WEIGHTS not in held(folder)
    assert held(folder)["consolidated-2.safetensors"] == FILES[WEIGHTS]


def test_weights_that_are_not_the_models_are_not_loaded_with_it(settings: Settings) -> None:
    folder = Path(settings.model_dir)
    folder.mkdir()
    (folder / "consolidated-mine.safetensors").write_bytes(b"precious")

    error = failure(settings)

    assert error.reason == "not_this_model"
    assert "consolidated-mine.safetensors" in str(error)
    assert held(folder) == {"consolidated-mine.safetensors": b"precious"}


@pytest.mark.parametrize("missing", ["params.json", "tekken.json", WEIGHTS])
def test_a_repository_without_a_needed_file_is_another_model(
    hub: Hub, settings: Settings, missing: str
) -> None:
    del hub.files[missing]

    assert failure(settings).reason == "not_this_model"


def test_names_from_the_hub_cannot_leave_the_folder(settings: Settings) -> None:
    names = [
        *NEEDED,
        "../consolidated.safetensors",
        "a/consolidated.safetensors",
        "..\\tekken.json",
    ]

    assert set(choose(names, settings)) == NEEDED


# --- Faults of the hub and the network.


def test_a_truncated_body_is_gone_on_with_where_it_ended(hub: Hub, settings: Settings) -> None:
    hub.fails(WEIGHTS, standin.truncates(100_000), standin.truncates(50_000))

    assert held(fetched(settings)) == NEEDED_FILES
    assert hub.ranges(WEIGHTS) == ["", "bytes=100000-", "bytes=150000-"]
    assert hub.sent[WEIGHTS] == len(FILES[WEIGHTS])


def test_a_server_that_ignores_the_range_is_started_over_with(hub: Hub, settings: Settings) -> None:
    hub.fails(WEIGHTS, standin.truncates(100_000), sends(FILES[WEIGHTS]))

    assert held(fetched(settings)) == NEEDED_FILES


def test_a_range_that_the_hub_refuses_is_started_over_with(hub: Hub, settings: Settings) -> None:
    hub.fails(WEIGHTS, standin.truncates(100_000), answers(416))

    assert held(fetched(settings)) == NEEDED_FILES
    assert hub.ranges(WEIGHTS) == ["", "bytes=100000-", ""]


def test_a_stall_in_a_file_is_gone_on_with(hub: Hub, settings: Settings) -> None:
    hub.fails(WEIGHTS, standin.stalls(100_000))

    assert held(fetched(settings)) == NEEDED_FILES
    assert hub.sent[WEIGHTS] == len(FILES[WEIGHTS])


@pytest.mark.parametrize("where", [LIST, "params.json", WEIGHTS])
def test_a_hub_that_says_nothing_is_given_up_after_some_attempts(
    hub: Hub, settings: Settings, where: str
) -> None:
    hub.fails(where, *[standin.stalls(0)] * 5)

    error = failure(settings)

    assert error.reason == "stalled"
    assert f"sent nothing for {HASTY.timeout_s:g} s" in str(error)
    assert len(hub.ranges(where)) == HASTY.attempts


@pytest.mark.parametrize(
    ("where", "fault", "reason", "says"),
    [
        (LIST, answers(401), "refused", "set HF_TOKEN"),
        (WEIGHTS, answers(401, X_Error_Code="GatedRepo"), "refused", "accept its terms"),
        (WEIGHTS, answers(403, X_Error_Code="GatedRepo"), "refused", "accept its terms"),
        (LIST, answers(403), "refused", "must allow it"),
        (LIST, answers(404), "not_found", "check VOXTRAL_MODEL_ID"),
        (WEIGHTS, answers(404), "not_found", f"{WEIGHTS} (404)"),
        (LIST, answers(429, Retry_After="300"), "rate_limited", "asks to wait 300 s"),
        (LIST, answers(429, RateLimit='"api";r=0;t=55'), "rate_limited", "asks to wait 55 s"),
        (LIST, answers(418), "hub_error", "answered 418"),
        (LIST, answers(200, b"<html>Log in to the hotel's network"), "hub_error", "a proxy"),
        (LIST, answers(200, b'{"siblings": 3}'), "hub_error", "a proxy"),
    ],
)
def test_what_no_second_attempt_would_mend_is_said_at_once(
    hub: Hub, settings: Settings, where: str, fault: object, reason: str, says: str
) -> None:
    hub.fails(where, fault)  # type: ignore[arg-type]

    error = failure(settings)

    assert error.reason == reason
    assert says in str(error)
    assert len(hub.ranges(where)) == 1


def test_a_token_that_is_not_taken_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.fails(LIST, answers(401))

    error = failure(made(hub, tmp_path, HF_TOKEN="hf_secret"))

    assert "does not take this HF_TOKEN" in str(error)
    assert "hf_secret" not in str(error)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("where", [LIST, "params.json"])
def test_what_passes_is_tried_again(hub: Hub, settings: Settings, status: int, where: str) -> None:
    hub.fails(where, answers(status), answers(status))

    assert held(fetched(settings)) == NEEDED_FILES
    assert len(hub.ranges(where)) == HASTY.attempts


@pytest.mark.parametrize(("status", "reason"), [(429, "rate_limited"), (503, "hub_error")])
def test_what_does_not_pass_ends_after_some_attempts(
    hub: Hub, settings: Settings, status: int, reason: str
) -> None:
    hub.fails(LIST, *[answers(status)] * 5)

    assert failure(settings).reason == reason
    assert len(hub.ranges(LIST)) == HASTY.attempts


def test_a_retry_waits_as_long_as_the_hub_asks(hub: Hub, settings: Settings) -> None:
    hub.fails(LIST, answers(429, Retry_After="1"))
    notes: list[str] = []

    fetch(settings, progress=lambda report: notes.append(report.note), patience=HASTY)

    assert any("(429)" in note and note.endswith("in 1 s.") for note in notes)


def test_wrong_bytes_are_fetched_once_more(hub: Hub, settings: Settings) -> None:
    wrong = bytes(len(FILES[WEIGHTS]))
    hub.fails(WEIGHTS, sends(wrong))

    assert held(fetched(settings)) == NEEDED_FILES
    assert len(hub.ranges(WEIGHTS)) == 2


@pytest.mark.parametrize("size", [len(FILES[WEIGHTS]), len(FILES[WEIGHTS]) + 70_000])
def test_wrong_bytes_twice_are_an_error_and_leave_no_file(
    hub: Hub, settings: Settings, size: int
) -> None:
    hub.fails(WEIGHTS, sends(bytes(size)), sends(bytes(size)))

    error = failure(settings)

    assert (error.reason, WEIGHTS in str(error)) == ("wrong_hash", True)
    assert WEIGHTS not in held(Path(settings.model_dir))
    assert not [name for name in hidden(Path(settings.model_dir)) if name.endswith(".part")]


def test_without_a_network_that_is_what_is_said(tmp_path: Path, hub: Hub) -> None:
    error = failure(made(hub, tmp_path, HF_ENDPOINT="http://127.0.0.1:1"))

    assert error.reason == "no_network"
    assert "http://127.0.0.1:1 cannot be reached" in str(error)


def test_a_half_written_folder_without_a_network_is_said_to_be_one(
    hub: Hub, settings: Settings
) -> None:
    hub.fails(WEIGHTS, standin.truncates(100_000), *[answers(500)] * 3)
    assert failure(settings).reason == "hub_error"

    error = failure(attrs.evolve(settings, hf_endpoint="http://127.0.0.1:1"))

    assert error.reason == "incomplete"
    assert "holds only a part of the model" in str(error)
    assert held(fetched(settings)) == NEEDED_FILES
    assert hub.sent[WEIGHTS] == len(FILES[WEIGHTS])


def test_an_impossible_model_id_is_said_before_anything_is_asked(hub: Hub, tmp_path: Path) -> None:
    error = failure(made(hub, tmp_path, VOXTRAL_MODEL_ID="no/such/model"))

    assert (error.reason, hub.requests) == ("not_found", [])
