"""Fixtures of the tests that run vLLM itself. Where it is not installed there are no such tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.vllm import tiny_model
from tests.vllm.vllm_harness import SharedVllm, settings
from voxtral_actors.engine import modelfolder

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model, complete in the eyes of the server."""
    folder = tiny_model.make(tmp_path_factory.mktemp("model") / "tiny")
    modelfolder.adopt(settings(folder))
    return folder


@pytest.fixture(scope="session")
def session_vllm(model: Path) -> Iterator[SharedVllm]:
    shared = SharedVllm(model)
    yield shared
    shared.stop()


@pytest.fixture
def shared(session_vllm: SharedVllm) -> SharedVllm:
    """The engine that the tests share; it is running."""
    return session_vllm.start()


@pytest.fixture(scope="session")
def said(session_vllm: SharedVllm) -> dict[bytes, str]:
    """Utterances, and the text that vLLM's own server hears in them."""
    return session_vllm.said or session_vllm.start().said


@pytest.fixture
def nobody_else(session_vllm: SharedVllm) -> None:
    """For a test that starts an engine of its own: two cores carry one at a time."""
    session_vllm.stop()


@pytest.fixture(scope="session", autouse=True)
def _garbage() -> Iterator[None]:
    """vLLM leaves its sockets to the collector, which warns: while warnings of vLLM are ignored."""
    yield
    gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings are errors where they are about this project; those of vLLM and torch are theirs.

    Tests with engines of their own come last, so that the shared one is started once.
    """
    filters = pytest.mark.filterwarnings(
        "ignore",
        "error::Warning:voxtral_actors",
        "error::pytest.PytestUnhandledThreadExceptionWarning",
    )
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(filters)
    items.sort(key=_when)


def _when(item: pytest.Item) -> int:
    fixtures: list[str] = getattr(item, "fixturenames", [])
    if "visits" in fixtures:  # of both engines, the shared one first
        return 1
    return 2 if "nobody_else" in fixtures or "p15" in item.name else 0
