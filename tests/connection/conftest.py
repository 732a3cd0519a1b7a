"""What every test of connections gets without asking: a check of the channels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.connection import fakes
from voxtral_actors.connection import supervisor


@pytest.fixture(autouse=True)
def all_ends_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every channel that a connection opened has lost both its ends when the test is over."""
    monkeypatch.setattr(supervisor, "open_wiring", fakes.recorded_wiring)
    yield
    fakes.assert_all_ends_closed()
