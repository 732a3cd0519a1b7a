"""Every command in every document is one that its program takes.

The commands of blocks are run where that is possible (`test_readme_commands.py`, `test_docs.py`,
`deploy`). Here are those in the middle of a sentence as well: `make` is asked what it would do, and
the others parse their own command lines and stop there.
"""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from click.testing import CliRunner

from tests.documents import ROOT
from voxtral_actors.cli import main

DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("[bet]*/README.md"))
    if path.name != "CHANGELOG.md"
)
CODE = re.compile(r"^```\w*\n.*?^```$|^    \S[^\n]*$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
OURS = re.compile(r"(?:(?<=[\s`(])|(?<=bin/)|^)voxtral-actors ((?:[a-z]|--)[^`|>#;&)\n]*)")
MAKE = re.compile(r"(?:(?<=[\s`])|^)make ((?:[a-z-]+)[^`#\n]*)")
BENCH = re.compile(r"python -m bench\.(\w+)([^`\n]*)")
EXTRA = re.compile(r"(?:voxtral-actors|\.)\[([\w,]+)\]")


class Parsed(BaseException):
    """A program has read its command line; it goes no further."""


def found(pattern: re.Pattern[str]) -> list[Any]:
    """What the pattern finds in the code of all documents, each once."""
    code = (CODE.findall(path.read_text("utf-8")) for path in DOCUMENTS)
    return sorted({match for parts in code for part in parts for match in pattern.findall(part)})


def test_the_documents_are_all_here() -> None:
    told = {path.relative_to(ROOT).as_posix() for path in DOCUMENTS}
    assert {"README.md", "docs/operations.md", "bench/README.md", "examples/README.md"} <= told
    assert "tests/README.md" in told


@pytest.mark.parametrize("arguments", found(OURS))
def test_voxtral_actors_takes_it(arguments: str) -> None:
    """Options are parsed before `--help` is acted on; files and settings need not be there."""
    done = CliRunner().invoke(main, [*shlex.split(arguments), "--help"])

    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("command", sorted(main.commands))
def test_voxtral_actors_takes_the_examples_of_its_help(command: str) -> None:
    shown = CliRunner().invoke(main, [command, "--help"]).output
    for example in OURS.findall(shown):
        arguments, *_meaning = re.split(r"\s{3,}", example)
        done = CliRunner().invoke(main, [*shlex.split(arguments), "--help"])
        assert done.exit_code == 0, arguments


@pytest.mark.parametrize("arguments", found(MAKE))
def test_make_takes_it(arguments: str) -> None:
    command = ["make", "--dry-run", "--no-print-directory", *shlex.split(arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "arguments"), found(BENCH))
def test_a_measurement_takes_it(name: str, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def stop(*args: Any, **options: Any) -> None:
        parse(*args, **options)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [name, *shlex.split(arguments.replace("PID", "1"))])
    if name == "charts":  # it takes none, and needs the extra `bench` already to be imported
        assert (arguments, (ROOT / "bench" / "charts.py").exists()) == ("", True)
    else:
        monkeypatch.delitem(sys.modules, f"bench.{name}", raising=False)  # another test imported it
        with pytest.raises(Parsed):
            runpy.run_module(f"bench.{name}", run_name="__main__")


def test_every_extra_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {extra for extras in found(EXTRA) for extra in extras.split(",")}

    assert {"sphinx", "client", "vllm"} <= named
    assert named <= set(project["optional-dependencies"])
