"""A real Chromium, headless, with a microphone into which a recording speaks.

`make test-browser` runs these. The driver is Playwright's, the browser is the system's: the one
that the variable CHROMIUM names, or else the first of the usual names on the PATH. A browser is
started once for each kind of microphone and shared; each test has a profile of its own in it.

Whatever a test is about, its page must at the end have raised nothing, violated nothing of its
content security policy, and asked no other server for anything (`visiting.Visit`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import soundfile
from playwright.sync_api import sync_playwright

from tests.browser.backend import Backend, running
from tests.browser.visiting import Visit, visiting
from tests.engine.scripted import HEALTHY, Script
from voxtral_actors.limits import SAMPLE_RATE

Shoot: TypeAlias = Callable[[Visit, str], None]

SAMPLE = Path(__file__).parents[2] / "voxtral_actors" / "demo" / "sample.flac"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HOW_TO_GET_ONE = """no Chromium found. Install one (Debian and Ubuntu: apt install chromium; \
Fedora: dnf install chromium), or name one: CHROMIUM=/path/to/chrome make test-browser"""

# No sandbox: it does not work for root, as which containers run; the pages are our own. The rest
# keeps the browser from talking to its maker.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
NOT_THIS_MACHINE = "lan.example"
"""A name for the loopback under which a page is none of the machine's own: no secure context."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="folder for pictures of the page")


@pytest.fixture
def shoot(request: pytest.FixtureRequest) -> Shoot:
    """Takes a picture, by a name, if pictures are wanted."""
    folder: Path | None = request.config.getoption("--screenshots")

    def take(visit: Visit, name: str) -> None:
        if folder is not None:
            visit.page.screenshot(path=folder / f"{name}.png")

    return take


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.exit(HOW_TO_GET_ONE, returncode=2)
    return found


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as the microphone hears it, with silence around it: the recogniser ends a sentence
    at a pause, and Chromium repeats the last 10 ms for ever."""
    path = tmp_path_factory.mktemp("microphone") / "sample.wav"
    audio, _ = soundfile.read(SAMPLE)
    quiet = np.zeros(SAMPLE_RATE)
    soundfile.write(path, np.concatenate([quiet, audio, quiet]), SAMPLE_RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def launch(chromium: str, recording: Path) -> Iterator[Callable[[str], Any]]:
    """Gives the browser with a kind of microphone: `speaking`, `muted` or `none`."""
    muted = recording.with_name("muted.wav")
    soundfile.write(muted, np.zeros(SAMPLE_RATE), SAMPLE_RATE, subtype="PCM_16")
    fake = ["--use-fake-device-for-media-stream", "--use-file-for-fake-audio-capture="]
    microphones = {
        "speaking": [fake[0], f"{fake[1]}{recording}%noloop"],
        "muted": [fake[0], f"{fake[1]}{muted}%noloop"],
        "none": [],
    }
    started: dict[str, Any] = {}

    def browser(microphone: str) -> Any:
        if microphone not in started:
            started[microphone] = driver.chromium.launch(
                executable_path=chromium,
                args=[
                    *QUIET,
                    f"--host-resolver-rules=MAP {NOT_THIS_MACHINE} 127.0.0.1",
                    *microphones[microphone],
                ],
            )
        return started[microphone]

    with sync_playwright() as driver:
        yield browser
        for each in started.values():
            each.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Backend]]:
    """Starts a server with the scripted engine: a script, and settings as keyword arguments."""
    with ExitStack() as stack:

        def start(script: Script = HEALTHY, **env: str) -> Backend:
            return stack.enter_context(running(script, **env))

        yield start


@pytest.fixture
def visit(
    launch: Callable[[str], Any],
    serve: Callable[..., Backend],  # pages are closed before their servers are
) -> Iterator[Callable[..., Visit]]:
    """Opens the page in a profile of its own; see `visiting` for the arguments."""
    del serve
    with ExitStack() as stack:

        def open_page(url: str, *, microphone: str = "speaking", **options: Any) -> Visit:
            return stack.enter_context(visiting(launch(microphone), url, **options))

        yield open_page
