"""`config/.env.example` shows every setting as it is, and works as it stands."""

from __future__ import annotations

import io
import re
from pathlib import Path

from dotenv import dotenv_values

from voxtral_actors.settings import describe, load

EXAMPLE = Path(__file__).parent.parent / "config" / ".env.example"
TEXT = EXAMPLE.read_text(encoding="utf-8")
GIVEN = {"VOXTRAL_API_KEY": "change-me", "MAX_CONCURRENT_CONNECTIONS": "100"}


def values(text: str) -> dict[str, str]:
    """As `--env-file` reads them."""
    return {name: value or "" for name, value in dotenv_values(stream=io.StringIO(text)).items()}


def test_as_it_stands_it_sets_the_required_settings_and_no_other() -> None:
    assert values(TEXT) == GIVEN
    assert load(values(TEXT)) == load(GIVEN)


def test_with_every_line_in_force_it_lists_all_settings_with_their_defaults() -> None:
    in_force = values(re.sub(r"(?m)^#(?=[A-Z_]+=)", "", TEXT))

    assert list(in_force) == [name for name, _, _ in describe(load(GIVEN))]
    assert load(in_force) == load(GIVEN)


def test_every_setting_has_its_explanation_above_it() -> None:
    lines = TEXT.splitlines()

    for name, _, meaning in describe(load(GIVEN)):
        (at,) = (i for i, line in enumerate(lines) if re.match(rf"#?{name}=", line))
        assert lines[at - 1] == f"# {meaning}"


def test_every_default_is_written_out() -> None:
    """An empty value would say nothing; only settings that are unset by default have one."""
    unset = {name for name, value, _ in describe(load(GIVEN)) if not value}

    assert set(re.findall(r"(?m)^#([A-Z_]+)=$", TEXT)) == unset | {"VOXTRAL_ENGINE"}
