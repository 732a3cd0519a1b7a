"""The microphone that is not there, not allowed, not heard: each with the next step to take."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.backend import Backend
from tests.browser.conftest import NOT_THIS_MACHINE
from tests.browser.test_speaking import wav, words
from tests.browser.visiting import Visit
from tests.engine.scripted import speech

Serve = Callable[..., Backend]
Open = Callable[..., Visit]

FAILS = """navigator.mediaDevices.getUserMedia = () =>
  Promise.reject(new DOMException("from the test", "NAME"));"""


def test_a_denied_microphone_says_where_to_allow_it(serve: Serve, visit: Open) -> None:
    page = visit(serve().with_key, allow_microphone=False)
    page.connected()
    page.press("Speak")
    page.notice("The microphone is not allowed for this page.", "site settings")
    page.expect("#transcript > li").to_have_count(0)
    page.expect("#speak").to_be_enabled()


def test_a_machine_without_a_microphone(serve: Serve, visit: Open) -> None:
    page = visit(serve().with_key, microphone="none")
    page.connected()
    page.press("Speak")
    page.notice("There is no microphone.", "Plug one in")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("NotAllowedError", "The microphone is not allowed for this page."),
        ("NotReadableError", "The microphone is in use."),
        ("AbortError", "The microphone is in use."),
        ("OverconstrainedError", "There is no microphone."),
        ("UnknownError", "The browser says: from the test"),
    ],
)
def test_each_failure_of_a_microphone_has_its_words(
    serve: Serve, visit: Open, error: str, words: str
) -> None:
    page = visit(serve().with_key, script=FAILS.replace("NAME", error))
    page.connected()
    page.press("Speak")
    page.notice(words)
    page.expect("#speak").to_be_enabled()


def test_a_page_that_came_over_plain_http_says_how_to_get_one(serve: Serve, visit: Open) -> None:
    """Recordings work there all the same."""
    backend = serve()
    page = visit(backend.with_key.replace("127.0.0.1", NOT_THIS_MACHINE), allow_microphone=False)
    page.connected()
    assert page.page.evaluate("isSecureContext") is False
    page.press("Speak")
    page.notice(
        "The microphone needs https, or localhost.",
        f"https://{NOT_THIS_MACHINE}/",
        f"ssh -N -L {backend.port}:localhost:{backend.port} {NOT_THIS_MACHINE}",
    )
    page.drop_file(wav(speech(0.5)))
    page.utterance(1, "done", words(speech(0.5)))


def test_a_muted_microphone_is_noticed(serve: Serve, visit: Open) -> None:
    page = visit(serve().with_key, microphone="muted")
    page.connected()
    page.press("Speak")
    page.notice("The microphone gives no sound.", "muted")
    page.utterance(1, "live")


def test_a_microphone_that_is_unplugged_finishes_what_it_heard(serve: Serve, visit: Open) -> None:
    keep = """const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wishes) => (window.taken = await ask(wishes));"""
    page = visit(serve().with_key, script=keep)
    page.connected()
    page.press("Speak")
    page.speaks()
    page.page.evaluate("taken.getTracks()[0].dispatchEvent(new Event('ended'))")
    page.notice("The microphone is gone.")
    page.utterance(1, "done")
