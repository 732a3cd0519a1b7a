"""Finding an engine by its name: one owner says which there are."""

from __future__ import annotations

import pytest

from tests.connection.fakes import make_settings
from voxtral_actors.engine import registry
from voxtral_actors.settings import SettingsError, load


def test_an_engine_that_is_not_installed_is_told_as_the_settings_tell_it() -> None:
    required = {"VOXTRAL_API_KEY": "k", "MAX_CONCURRENT_CONNECTIONS": "1"}
    with pytest.raises(SettingsError) as told:
        load({**required, "VOXTRAL_ENGINE": "vlm"})
    with pytest.raises(registry.EngineSetupError) as raised:
        registry.load(make_settings(engine="vlm"))

    assert told.value.problems == [str(raised.value)]
