"""Code blocks of the documentation, so that tests can run them as they stand."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(path: str, language: str, heading: str = "") -> list[str]:
    """The blocks of one language in a document, or under one of its headings."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if heading:
        _, found, text = text.partition(f"\n## {heading}\n")
        assert found, f"{path} has no heading {heading!r}"
        text = re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return [match["code"] for match in _BLOCK.finditer(text) if match["language"] == language]


def links(path: str) -> list[Path]:
    """Where the relative links of a document lead."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text)
    return [(ROOT / path).parent / link for link in found]
