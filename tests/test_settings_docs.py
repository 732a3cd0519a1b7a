"""docs/settings.md says what the settings code says.

After a change, `UPDATE_SETTINGS=1 make test ARGS=tests/test_settings_docs.py` writes it anew.
"""

from __future__ import annotations

import os

import attrs

from tests.documents import ROOT
from voxtral_actors import setting_types as kinds
from voxtral_actors.settings import Settings, describe, load

DOCS = ROOT / "docs" / "settings.md"
HEAD = """\
# Settings

<!-- Written by: UPDATE_SETTINGS=1 make test ARGS=tests/test_settings_docs.py -->

Each setting is an environment variable, or a line of a file that `--env-file` names. An empty value
counts as unset. `voxtral-actors check-config` prints the effective values, or all that is wrong.

| variable | default | allowed | meaning |
|---|---|---|---|
"""
COMPUTED = {"VOXTRAL_ENGINE"}  # the default depends on what is installed


def written() -> str:
    """The whole document."""
    required = {"VOXTRAL_API_KEY": "key", "MAX_CONCURRENT_CONNECTIONS": "1"}
    allowed = {f.metadata["env"]: kinds.words(f.type) for f in attrs.fields(Settings)}
    rows = []
    for name, value, meaning in describe(load(required)):
        default = "required" if name in required else f"`{value}`" if value else "unset"
        default = "see meaning" if name in COMPUTED else default
        words = "the name of an installed engine" if name in COMPUTED else allowed[name]
        rows.append(f"| `{name}` | {default} | {words} | {meaning} |\n")
    return HEAD + "".join(rows)


def test_the_settings_docs_are_those_of_the_code() -> None:
    if os.environ.get("UPDATE_SETTINGS"):
        DOCS.write_text(written(), encoding="utf-8")

    assert DOCS.read_text(encoding="utf-8") == written()


def test_every_row_is_one_row() -> None:
    """Nothing in it may break the table."""
    for row in written().splitlines():
        assert not row.startswith("| `") or row.count("|") == 5, row
