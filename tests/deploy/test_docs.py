"""docs/deployment.md and docs/operations.md: the commands work, and the guide has everything.

A block of commands that begins with `# Needs …` is for a machine that this one is not: see
`test_docs_elsewhere.py`. All others are run, in one folder for each page that holds what the
repository holds, beside a server on another port than the one that the page names.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import trio

from tests.deploy.tools import DOCS, PATH, ROOT, program
from tests.server.server_process import server_process
from tests.server.wire_client import KEY
from voxtral_actors.protocol.closing import Close

PAGES = ["deployment.md", "operations.md"]
GUIDE = (DOCS / "operations.md").read_text("utf-8")
ELSEWHERE = "# Needs "
LOUD = {"warning", "error", "exception", "critical"}
PROGRAMS = {"promtool", "haproxy", "kubectl", "systemd-analyze"}


def blocks(page: str) -> list[str]:
    text = (DOCS / page).read_text("utf-8")
    assert text.count("```") == 2 * text.count("```sh\n"), "all blocks are commands"
    return re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def table(section: str) -> list[list[str]]:
    """The cells of the table under a heading of the guide."""
    match = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", GUIDE, re.DOTALL | re.MULTILINE)
    assert match, section
    rows = [line for line in match[1].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1:]]


async def bash(script: str, folder: Path) -> None:
    done: subprocess.CompletedProcess[bytes] = await trio.run_process(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={"PATH": PATH, "HOME": str(folder), "VOXTRAL_API_KEY": KEY},
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, f"{script}\n{said}"


@pytest.mark.parametrize("page", PAGES)
async def test_the_commands_of_the_page_work(page: str, tmp_path: Path) -> None:
    here = [block for block in blocks(page) if not block.startswith(ELSEWHERE)]
    for name in sorted(PROGRAMS & set(re.findall(r"[\w-]+", " ".join(here)))):
        program(name)
    shutil.copytree(ROOT / "config", tmp_path / "config", ignore=shutil.ignore_patterns("keys.env"))
    with trio.fail_after(120):
        async with server_process() as server:
            await server.said("engine.ready")
            address = f"127.0.0.1:{await server.port()}"
            for block in here:
                await bash(block.replace("127.0.0.1:8000", address), tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    text = (DOCS / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (DOCS / path) if path else DOCS / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}
            assert anchor in slugs, target


def test_the_guide_has_every_way_in_which_a_connection_is_closed() -> None:
    told = [(row[0], row[1].strip("`")) for row in table("Close codes")]
    assert told == [(str(close.spec.code), close.spec.slug) for close in Close]


def loud_events() -> Counter[tuple[str, str]]:
    """(event, level) of every call in the package that logs a warning or an error.

    A logger that is chosen first and called later, `tell = log.info if … else log.warning`, counts
    with the louder one.
    """
    found: Counter[tuple[str, str]] = Counter()
    for path in (ROOT / "voxtral_actors").rglob("*.py"):
        for scope in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
                chosen = dict(choices(scope))
                for call in ast.walk(scope):
                    if isinstance(call, ast.Call) and (level := volume(call.func, chosen)):
                        event = call.args[0]
                        assert isinstance(event, ast.Constant), ast.unparse(call)
                        found[str(event.value), level] += 1
    return found


def choices(scope: ast.AST) -> list[tuple[str, str]]:
    """Names that may stand for a loud method of the log."""
    return [
        (target.id, level)
        for node in ast.walk(scope)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.IfExp)
        for target in node.targets
        if isinstance(target, ast.Name)
        for part in (node.value.body, node.value.orelse)
        if (level := volume(part, {}))
    ]


def volume(node: ast.expr, chosen: dict[str, str]) -> str | None:
    """The level of a method of `log`, if it is a loud one."""
    if isinstance(node, ast.Name):
        return chosen.get(node.id)
    match node:
        case ast.Attribute(value=ast.Name(id="log"), attr=method) if method in LOUD:
            return "warning" if method == "warning" else "error"
    return None


def test_the_guide_has_every_event_that_is_logged_as_a_warning_or_an_error() -> None:
    told = {(row[0].strip("`"), row[1]) for row in table("Lines of the log")}
    assert told == set(loud_events())


def test_the_guide_has_every_reason_for_which_an_utterance_fails() -> None:
    """Those of the README, but for what the client did wrong, and those of the engines."""
    readme = (ROOT / "README.md").read_text("utf-8")
    codes = "backlog_exceeded|engine_unavailable|server_at_capacity"
    rows = re.findall(rf"^\| `(?:{codes})` \| ([^|]+) \|", readme, re.MULTILINE)
    sources = [path.read_text("utf-8") for path in (ROOT / "voxtral_actors").rglob("*.py")]
    failed = re.findall(r'Failed\(\s*"(\w+)"', "\n".join(sources))
    told = {row[0].strip("`") for row in table("Errors of an utterance")}

    assert told == set(re.findall(r"`(\w+)`", " ".join(rows))) | set(failed)


def test_every_name_of_an_event_or_metric_in_the_guide_exists() -> None:
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "voxtral_actors").rglob("*.py"))
    metrics = (DOCS / "metrics.md").read_text("utf-8")
    events = set(re.findall(r"`((?!process\.)[a-z]+\.[a-z_]+)`", GUIDE))
    files = {name for name in events if name.endswith((".md", ".env", ".yaml", ".cfg"))}

    assert {event for event in events - files if f'"{event}"' not in sources} == set()
    for name in re.findall(r"`(voxtral_\w+)`", GUIDE):
        assert f"`{name}`" in metrics, name
