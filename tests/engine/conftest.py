"""Fixtures of the tests of fetching; those of the engines have their own harness."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import hub as standin
from voxtral_actors.settings import Settings


@pytest.fixture(scope="session")
def _hub_session() -> Iterator[None]:
    """No proxy in between; its connections are closed when the last test of them is over."""
    with pytest.MonkeyPatch.context() as context:
        for name in ("NO_PROXY", "no_proxy"):
            context.setenv(name, "localhost,127.0.0.1")
        yield
    import huggingface_hub

    huggingface_hub.close_session()


@pytest.fixture
def hub(_hub_session: None) -> Iterator[standin.Hub]:
    """A running stand-in for the model hub."""
    from tests.engine.snapshot_harness import FILES, LARGE

    with standin.running(dict(FILES), LARGE) as hub:
        yield hub


@pytest.fixture
def settings(hub: standin.Hub, tmp_path: Path) -> Settings:
    """Settings that fetch from it."""
    from tests.engine.snapshot_harness import made

    return made(hub, tmp_path)
