"""The unit of systemd: verified by systemd, and at one with the server about how it stops."""

from __future__ import annotations

import re
import shlex
import sys
from configparser import ConfigParser
from pathlib import Path

from tests.deploy.tools import CONFIG, judged
from voxtral_actors.cli import WRONG_SETTINGS, main
from voxtral_actors.settings import load

UNIT = CONFIG / "systemd" / "voxtral-actors.service"
PROGRAM = "/opt/voxtral-actors/venv/bin/voxtral-actors"
EXPOSED_AT_MOST = 30
"""In tenths, as `systemd-analyze security` rates it: 0 is shut off, 100 is unprotected."""


def service() -> dict[str, str]:
    """The section of the process, without the keys that occur more than once."""
    unit = ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(UNIT)
    return dict(unit["Service"])


def test_systemd_knows_every_setting_and_value_of_the_unit(tmp_path: Path) -> None:
    """It looks for the program as well, so it is given one that exists."""
    text = UNIT.read_text("utf-8")
    assert f"ExecStart={PROGRAM} serve\n" in text
    here = tmp_path / UNIT.name
    here.write_text(text.replace(PROGRAM, f"{sys.executable} -m voxtral_actors"))

    assert judged("systemd-analyze", "verify", "--man=no", here) == ""


def test_it_is_closed_to_what_the_server_does_not_need() -> None:
    judged("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSED_AT_MOST}", UNIT)


def test_p16_a_stop_takes_as_long_as_a_drain_and_goes_to_the_server_alone() -> None:
    settings = load({"VOXTRAL_API_KEY": "any", "MAX_CONCURRENT_CONNECTIONS": "1"})
    stop = service()
    program, *command = shlex.split(stop["ExecStop"])
    patient = main.commands["drain"].make_context("drain", [*command[1:-1], "1"])

    assert (program, command[0], command[-1]) == (f"-{PROGRAM}", "drain", "$MAINPID")
    for needed in (settings.drain_timeout_s, patient.params["within_s"]):
        assert float(stop["TimeoutStopSec"]) >= needed + 10
    assert (stop["KillSignal"], stop["KillMode"]) == ("SIGTERM", "mixed")


def test_wrong_settings_are_not_tried_again() -> None:
    assert service()["Restart"] == "on-failure"
    assert service()["RestartPreventExitStatus"] == str(WRONG_SETTINGS)


def test_it_sets_no_variable_that_the_server_does_not_know() -> None:
    lines = re.findall(r"^Environment=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)
    variables = dict(word.split("=", 1) for line in lines for word in line.split())

    load({"VOXTRAL_API_KEY": "any", "MAX_CONCURRENT_CONNECTIONS": "1", **variables})
    assert variables["VOXTRAL_MODEL_DIR"] == "%S/voxtral-actors/model"
