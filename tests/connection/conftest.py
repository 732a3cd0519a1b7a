"""What every test of connections gets without asking: virtual time, no logs, closed channels."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.connection import fakes
from voxtral_actors.connection import supervisor

HERE = Path(__file__).parent


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every asynchronous test of this folder runs in virtual time, on the schedule of seed 0."""
    for item in items:
        if HERE in item.path.parents and inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=fakes.simulate), append=False)


@pytest.fixture(autouse=True)
def nothing_left_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every channel that a connection opened has lost both its ends when the test is over."""
    monkeypatch.setattr(supervisor, "open_wiring", fakes.recorded_wiring)
    with capture_logs():  # a traceback made readable takes longer than the test that provokes it
        yield
    fakes.assert_all_ends_closed()
