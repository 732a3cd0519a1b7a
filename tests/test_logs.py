"""Logs: one renderer for our events and other people's records, and no secrets in either."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog

from voxtral_actors import logs
from voxtral_actors.secret import Secret

FORMS: list[Literal["text", "json"]] = ["text", "json"]
KEY = "0f3c-d9é/8a'1b"


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Logging is process-wide; other tests (and pytest itself) have their own handlers."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Literal["text", "json"]:
    chosen: Literal["text", "json"] = request.param
    return chosen


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_is_one_object_a_line_with_utc_time(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")

    structlog.get_logger("voxtral").warning("slow", took_s=1.5, who=Secret("x"))

    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "slow",
        "level": "warning",
        "logger": "voxtral",
        "took_s": 1.5,
        "who": "********",
    }


def test_records_of_the_standard_library_look_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")

    logging.getLogger("hypercorn.error").info("Running on %s", "127.0.0.1")

    (line,) = lines(capsys)
    assert line.keys() == {"event", "level", "logger", "timestamp"}
    assert (line["event"], line["logger"]) == ("Running on 127.0.0.1", "hypercorn.error")


def test_the_level_holds_for_both_kinds(
    form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("warning", form)

    structlog.get_logger("voxtral").info("quiet")
    logging.getLogger("quart").info("quiet")
    assert capsys.readouterr().err == ""

    logging.getLogger("quart").warning("loud")
    assert capsys.readouterr().err.count("\n") == 1


def test_a_second_call_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", "text")
    logs.configure("info", "json")

    structlog.get_logger("voxtral").info("once")

    assert [line["event"] for line in lines(capsys)] == ["once"]


def test_text_has_no_colours_when_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")

    structlog.get_logger("voxtral").error("plain", n=1)

    err = capsys.readouterr().err
    assert "plain" in err
    assert "\x1b" not in err


def test_text_has_colours_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    logs.configure("info", "text")

    structlog.get_logger("voxtral").error("bright")

    assert "\x1b[" in capsys.readouterr().err


def test_nothing_from_outside_forges_a_line_or_moves_the_cursor(
    form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", form)

    structlog.get_logger("voxtral").info("bad\x1b[2J", session_id="a\nINFO forged\x1b[2J")
    logging.getLogger("hypercorn.error").info("bad request: %s", "GET /\x1b[2J\r\nforged")

    err = capsys.readouterr().err
    assert err.count("\n") == 2
    assert not {"\x1b", "\r"} & set(err)


def test_an_exception_is_logged_with_its_traceback_and_without_local_variables(
    form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", form)
    audio = "private-words"

    try:
        raise ExceptionGroup("two", [ValueError("first"), KeyError(len(audio))])
    except ExceptionGroup:
        structlog.get_logger("voxtral").exception("actor failed")

    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "ValueError: first" in err
    assert audio not in err.replace('audio = "private-words"', "")


@pytest.mark.parametrize(
    "text",
    [
        "GET /ws?api_key=SECRET&x=1 HTTP/1.1",
        "GET /ws?x=1&API_KEY=SECRET",
        "next=%2Fws%3Fapi_key%3DSECRET",
        "voxtral.v1, voxtral-api-key.SECRET",
        "Authorization: Bearer SECRET",
        "'authorization': 'bearer SECRET'",
        "X-API-Key: SECRET",
        "[(b'x-api-key', b'SECRET')]",
        '{"x-api-key": "SECRET"}',
        "refused Bearer SECRET",
    ],
)
def test_p7_a_key_in_a_known_form_is_cut_from_texts(
    text: str, form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    """Here the key is a client's wrong guess, which the server does not know."""
    logs.configure("info", form)

    structlog.get_logger("voxtral").info(text, path=text, nested={"paths": [text]})
    logging.getLogger("hypercorn.access").info("%s", text)
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("quart").exception("failed")

    err = capsys.readouterr().err
    assert "SECRET" not in err
    assert "********" in err


@pytest.mark.parametrize(
    "name",
    [
        "key",
        "keys",
        "api_key",
        "API-KEY",
        "x-api-key",
        "token",
        "hf_token",
        "secret",
        "authorization",
    ],
)
def test_p7_a_value_under_a_telling_name_is_masked(
    name: str, form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", form)
    log = structlog.get_logger("voxtral")

    log.info("flat", **{name: "SECRET"})
    log.info("deep", headers={"a": [{name: "SECRET"}], "b": [(name.encode(), b"SECRET")]})

    assert "SECRET" not in capsys.readouterr().err


def test_counts_and_innocent_names_are_not_masked(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    innocent = {"prompt_tokens": 12, "token_count": 3, "monkey": "b", "keyboard": "c"}

    structlog.get_logger("voxtral").info("key takes token", **innocent)

    (line,) = lines(capsys)
    assert line["event"] == "key takes token"
    assert {name: line[name] for name in innocent} == innocent


def test_p7_the_servers_own_keys_are_masked_wherever_they_turn_up(
    form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", form, [Secret("0f3c-d9"), Secret(KEY)])

    structlog.get_logger("voxtral").info(f"odd place {KEY}", frame=f"<{KEY}>", raw=[KEY, "0f3c-d9"])
    logging.getLogger("hypercorn.error").info("path /x/0f3c-d9%C3%A9%2F8a%271b")
    try:
        raise ValueError(KEY)
    except ValueError:
        logging.getLogger("quart").exception("failed")

    err = capsys.readouterr().err
    assert "0f3c" not in err
    assert "8a" not in err


def test_a_short_key_does_not_mask_ordinary_words(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json", [Secret("k")])

    structlog.get_logger("voxtral").info("kick off", url="/ws?api_key=k")

    (line,) = lines(capsys)
    assert (line["event"], line["url"]) == ("kick off", "/ws?api_key=********")
