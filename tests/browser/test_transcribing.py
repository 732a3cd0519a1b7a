"""Real speech, from the microphone to the page: the server process with the embedded recogniser.

What stands on the page is, word for word, what was said. Once more with a browser that joins no
16 kHz context to a microphone, as Firefox does: then the page's own resampler is in the path.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.conftest import SAMPLE, Shoot
from tests.browser.visiting import Visit
from tests.server.server_process import start_command
from tests.server.wire_client import KEY

Open = Callable[..., Visit]

SAID = SAMPLE.with_suffix(".txt").read_text(encoding="utf-8").strip()
ONE_RATE = """const Real = AudioContext;
window.AudioContext = class extends Real {
  constructor(options) { super(); this.odd = Boolean(options); window.rate = this.sampleRate; }
  createMediaStreamSource(stream) {
    if (this.odd) throw new DOMException("another rate", "NotSupportedError");
    return super.createMediaStreamSource(stream);
  }
};"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The page's address on a running server process."""
    how: dict[str, Any] = start_command()
    with subprocess.Popen(
        how["command"], env=how["env"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as server:
        assert server.stderr is not None
        lines = map(json.loads, server.stderr)
        port = next(
            re.search(r":(\d+)/", line["url"]) for line in lines
            if line["event"] == "server.listening"
        )  # fmt: skip
        assert port is not None
        assert any(line["event"] == "engine.ready" for line in lines)
        yield f"http://127.0.0.1:{port[1]}/#key={KEY}"
        server.terminate()
        server.stderr.read()
    assert server.returncode == 0


@pytest.mark.parametrize("script", ["", ONE_RATE], ids=["16kHz", "resampled"])
def test_speech_into_the_microphone_stands_on_the_page(
    visit: Open, address: str, script: str
) -> None:
    page = visit(address, script=script)
    page.connected()
    page.expect("#server").to_contain_text("accuracy of its age")
    page.press("Speak")
    page.expect("#transcript .text").to_have_text(SAID)
    page.utterance(1, "live")
    page.press("Stop")
    page.utterance(1, "done", SAID)
    if script:
        assert page.page.evaluate("rate") != 16_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_recording_stands_on_the_page_and_then_more_is_said(
    visit: Open, address: str, shoot: Shoot, scheme: str
) -> None:
    desk = {"width": 960, "height": 560}
    page = visit(address, color_scheme=scheme, viewport=desk, reduced_motion="reduce")
    page.connected()
    page.page.check("#fast")
    page.drop_file(SAMPLE, SAMPLE.name)
    page.utterance(1, "done", SAID)
    page.expect(".about").to_contain_text("sample.flac")
    page.expect(".label").to_have_text("8.3 s")
    page.press("Speak")
    page.speaks(2)
    shoot(page, scheme)
    page.press("Cancel")
    page.utterance(2, "cancelled")
