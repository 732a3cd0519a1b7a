"""The page as somebody sees it who visits it: what it says, and what can be done on it.

`visiting` watches the page from the outside all the while: errors on its console, violations of its
content security policy, exceptions, and requests to anybody but its own server.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
from playwright.sync_api import expect

PATIENCE_MS = 60_000  # the recogniser and the browser share whatever the machine has left
REPORT_VIOLATIONS = """addEventListener("securitypolicyviolation", (event) =>
  console.error("CSP", event.violatedDirective, event.blockedURI))"""
DROP = """([base64, name]) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name));
  const options = { dataTransfer, bubbles: true, cancelable: true };
  document.body.dispatchEvent(new DragEvent("dragover", options));
  document.body.dispatchEvent(new DragEvent("drop", options));
}"""
CANNOT_CONNECT = re.compile(r"WebSocket connection to .* failed|net::ERR_")


@attrs.define(slots=False)  # the driver hangs things of its own on it
class Visit:
    """One page."""

    page: Any
    url: str
    faults: list[str] = attrs.field(factory=list)
    requested: set[str] = attrs.field(factory=set)

    def expect(self, selector: str) -> Any:
        """An assertion about an element, which is given time to come true."""
        return expect(self.page.locator(selector))

    def connected(self) -> None:
        self.expect("#state-words").to_have_text("Ready")

    def notice(self, *texts: str) -> None:
        """The notice is shown and says all of this."""
        self.expect("#notice").to_be_visible()
        for text in texts:
            self.expect("#notice").to_contain_text(text)

    def no_notice(self) -> None:
        self.expect("#notice").to_be_hidden()

    def utterance(self, number: int, state: str, text: str | re.Pattern[str] = "") -> None:
        """The n-th utterance, from 1, is in this state and says this."""
        item = f"#transcript > li:nth-child({number})"
        self.expect(item).to_have_attribute("data-state", state)
        if text:
            self.expect(f"{item} .text").to_have_text(text)

    def text(self, number: int) -> str:
        return str(self.page.locator(f"#transcript > li:nth-child({number}) .text").inner_text())

    def speaks(self, number: int = 1) -> None:
        """Words have come for the n-th utterance, and it goes on."""
        self.utterance(number, "live", re.compile(r"\w+"))

    def drop_file(self, content: bytes | Path, name: str = "recording.wav") -> None:
        data = content.read_bytes() if isinstance(content, Path) else content
        self.page.evaluate(DROP, [base64.b64encode(data).decode(), name])

    def press(self, button: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).click()

    def _note_console(self, message: Any) -> None:
        if message.type == "error" and not CANNOT_CONNECT.search(message.text):
            self.faults.append(message.text)

    def _note_request(self, request: Any) -> None:
        self.requested.add(urlsplit(request.url).netloc)


@contextmanager
def visiting(
    browser: Any, url: str, *, allow_microphone: bool = True, script: str = "", **options: Any
) -> Iterator[Visit]:
    """Open `url` in a profile of its own. `script` runs before the page's own; `options` are those
    of a browser context, such as `color_scheme` and `viewport`."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    if allow_microphone:
        context.grant_permissions(["microphone"])
    page = context.new_page()
    visit = Visit(page, url)
    page.on("console", visit._note_console)
    page.on("pageerror", lambda error: visit.faults.append(str(error)))
    page.on("request", visit._note_request)
    page.on("websocket", visit._note_request)
    page.add_init_script(REPORT_VIOLATIONS)
    if script:
        page.add_init_script(script)
    page.goto(url)
    yield visit
    context.close()
    assert visit.faults == []
    assert visit.requested == {urlsplit(url).netloc}
