"""How the page looks and how it is reached: narrow screens, both palettes, keyboard, screen reader.

`make test-browser ARGS='--screenshots docs/screenshots'` writes the pictures that the documentation
shows: from the tests of this file and, with real speech, from `test_transcribing.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.browser.backend import Backend
from tests.browser.conftest import Shoot
from tests.browser.test_speaking import wav
from tests.browser.visiting import Visit
from tests.engine import script as scripting
from tests.engine.scripted import speech

Serve = Callable[..., Backend]
Open = Callable[..., Visit]

DESK = {"width": 960, "height": 620}
PHONE = {"width": 375, "height": 667}
SAYING = (
    " We will meet again tomorrow morning. The train leaves at seven in the evening,"
    " so there is time for a walk along the river before dinner."
)
CONTRAST = """() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3)
      .map((c) => colour.startsWith("color(") ? +c : c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const { backgroundColor } = getComputedStyle(each);
      if (!/^rgba\\(0, 0, 0, 0\\)$/.test(backgroundColor)) return luminance(backgroundColor);
    }
    return 1;
  };
  const shown = [...document.querySelectorAll("h1, h2, p, span, label, button:enabled, code")]
    .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.data?.trim()))
    .filter((e) => !e.closest(".unseen, .fresh"));
  return shown.map((e) => {
    const [a, b] = [luminance(getComputedStyle(e).color), ground(e)].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 30)];
  }).filter(([ratio]) => ratio < 4.5);
}"""


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine says a sentence, a word a frame, and says it again."""
    frames = iter(range(10**6))
    said = re.findall(r"\s+\S+", SAYING)
    monkeypatch.setattr(scripting, "word", lambda _: said[next(frames) % len(said)])


def fits(page: Visit) -> bool:
    return bool(page.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_palettes_can_be_read(serve: Serve, visit: Open, talk: None, scheme: str) -> None:
    page = visit(serve().with_key, color_scheme=scheme, viewport=DESK, reduced_motion="reduce")
    page.connected()
    page.drop_file(wav(speech(0.08 * 25)), name="minutes.flac")
    page.utterance(1, "done")
    page.press("Speak")
    page.expect("#transcript > li:nth-child(2) .text").to_have_text(re.compile("seven in the"))
    assert page.page.evaluate(CONTRAST) == []
    page.press("Cancel")
    page.utterance(2, "cancelled")
    assert page.page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_refused_key_can_be_read(serve: Serve, visit: Open, shoot: Shoot, scheme: str) -> None:
    page = visit(serve().url + "#key=wrong", color_scheme=scheme, viewport=DESK)
    page.notice("The key was not accepted.")
    if scheme == "light":
        shoot(page, "key-refused")
    assert page.page.evaluate(CONTRAST) == []


def test_a_denied_microphone_can_be_read(serve: Serve, visit: Open, shoot: Shoot) -> None:
    page = visit(serve().with_key, allow_microphone=False, viewport=DESK)
    page.connected()
    page.press("Speak")
    page.notice("The microphone is not allowed for this page.")
    shoot(page, "microphone-denied")
    assert page.page.evaluate(CONTRAST) == []


def test_everything_fits_on_a_phone(serve: Serve, visit: Open, shoot: Shoot, talk: None) -> None:
    page = visit(serve().with_key, viewport=PHONE, has_touch=True, reduced_motion="reduce")
    page.connected()
    assert fits(page)
    page.drop_file(wav(speech(0.08 * 25)), name="minutes.flac")
    page.utterance(1, "done")
    page.press("Speak")
    page.expect("#transcript > li:nth-child(2) .text").to_have_text(re.compile("seven in the"))
    shoot(page, "phone")
    assert fits(page)
    for button in ("Stop", "Start over", "Cancel"):
        box = page.page.get_by_role("button", name=button).bounding_box()
        assert min(box["width"], box["height"]) >= 44
    page.drop_file(wav(speech(0.5)), name="a-name-without-end-" * 8 + ".flac")
    page.utterance(3, "done")
    assert fits(page)


def test_everything_can_be_reached_and_done_with_the_keyboard(serve: Serve, visit: Open) -> None:
    page = visit(serve().with_key)
    page.connected()
    reached = []
    for _ in range(4):
        page.page.keyboard.press("Tab")
        reached.append(page.page.evaluate("document.activeElement.id"))
        outline = page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    assert reached == ["change-key", "speak", "choose", "fast"]
    page.page.focus("#speak")
    page.page.keyboard.press("Space")
    page.speaks()
    page.page.keyboard.press("Enter")
    page.utterance(1, "done")
    page.expect("#speak").to_be_focused()


def test_a_screen_reader_hears_what_is_over_and_what_is_wrong(serve: Serve, visit: Open) -> None:
    page = visit(serve().with_key)
    page.connected()
    page.press("Speak")
    page.speaks()
    page.expect("#announcer").to_have_text("")
    page.press("Stop")
    page.utterance(1, "done")
    spoken = page.page.get_by_role("status").inner_text()
    assert spoken == page.text(1)
    page.expect("#announcer").to_have_attribute("aria-live", "polite")
    page.expect("#notice").to_have_attribute("role", "alert")
    unnamed = """[...document.querySelectorAll("button, input")].filter((e) =>
      !e.textContent.trim() && !e.labels?.length && !e.ariaLabel).map((e) => e.id)"""
    assert page.page.evaluate(unnamed) == []
