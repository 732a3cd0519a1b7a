"""What README.md says of codes and settings is what the code has.

After a change, `UPDATE_README=1 make test ARGS=tests/test_readme.py` writes the tables anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.documents import blocks, links
from voxtral_actors.protocol.closing import Close
from voxtral_actors.settings import describe, load

README = Path(__file__).parent.parent / "README.md"


def closing_table() -> str:
    """The close codes as a Markdown table."""
    rows = ["| close | reason | meaning | `error` before it | retry |", "|---|---|---|---|---|"]
    for close in Close:
        spec = close.spec
        retry = "yes" if spec.retry else "no"
        if spec.retry_after_s is not None:
            retry += f", after {spec.retry_after_s:g} s"
        error = f"`{spec.error}`" if spec.error else ""
        rows.append(f"| {spec.code} | `{spec.slug}` | {spec.meaning} | {error} | {retry} |")
    return "\n".join(rows)


def settings_table() -> str:
    """The settings as a Markdown table."""
    required = {"VOXTRAL_API_KEY": "key", "MAX_CONCURRENT_CONNECTIONS": "1"}
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    computed = {"VOXTRAL_ENGINE"}
    for name, value, meaning in describe(load(required)):
        shown = f"`{value}`" if value else ""
        if name in required:
            shown = "required"
        elif name in computed:
            shown = ""
        rows.append(f"| `{name}` | {shown} | {meaning} |")
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("name", "table"), [("closing", closing_table()), ("settings", settings_table())]
)
def test_readme_has_the_table_of_the_code(name: str, table: str) -> None:
    """Between its marks stands exactly what the code says."""
    text = README.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name}-table -->\n)(.*?)(\n<!-- /{name}-table -->)", re.DOTALL)
    if os.environ.get("UPDATE_README"):
        text = pattern.sub(lambda match: match[1] + table + match[3], text)
        README.write_text(text, encoding="utf-8")
    match = pattern.search(text)

    assert match is not None
    assert match[2] == table


def test_readme_links_lead_somewhere() -> None:
    """Relative links lead to files of this repository."""
    found = links("README.md")

    assert found
    assert [str(link) for link in found if not link.exists()] == []


async def test_readme_client_transcribes_the_sample(tmp_path: Path) -> None:
    """The block under "A client in Python" is a program that works, but for the server's port."""
    pytest.importorskip("pocketsphinx", reason="the embedded engine is not installed")
    import subprocess
    import sys

    import trio

    from tests.server.server_process import server_process
    from tests.server.wire_client import KEY

    [program_text] = blocks("README.md", "python", "A client in Python")
    assert program_text.count("127.0.0.1:8000") == 1
    demo = README.parent / "voxtral_actors" / "demo"
    words = (demo / "sample.txt").read_text(encoding="utf-8").split()
    program = tmp_path / "client.py"
    with trio.fail_after(60):
        async with server_process() as server:
            await server.said("engine.ready")
            here = f"127.0.0.1:{await server.port()}"
            program.write_text(program_text.replace("127.0.0.1:8000", here), encoding="utf-8")
            done: subprocess.CompletedProcess[bytes] = await trio.run_process(
                [sys.executable, program, demo / "sample.flac", KEY],
                cwd=README.parent,
                env={"PYTHONPATH": str(README.parent)},
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )

    assert done.returncode == 0, done.stderr.decode()
    *deltas, last = done.stdout.decode().strip().splitlines()
    assert " ".join(deltas).split() == words
    assert last.startswith("Done(")
