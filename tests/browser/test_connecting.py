"""Getting in and coming back: keys, refusals, restarts, and what the page says meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain, repeat
from types import SimpleNamespace

import pytest
import trio

from tests.browser.backend import Backend
from tests.browser.test_speaking import wav, words
from tests.browser.visiting import Visit
from tests.engine.scripted import Script, speech
from tests.server.wire_client import KEY
from voxtral_actors.connection import duration

Serve = Callable[..., Backend]
Open = Callable[..., Visit]

REMEMBER_NOTICES = """addEventListener("DOMContentLoaded", () => {
  window.told = [];
  const title = document.querySelector("#notice-title");
  new MutationObserver(() => told.push(title.textContent)).observe(title, { childList: true });
});"""


def test_the_key_is_taken_from_the_address_and_out_of_it(serve: Serve, visit: Open) -> None:
    page = visit(serve().with_key)
    page.connected()
    assert page.page.evaluate("location.href") == page.url.partition("#")[0]
    assert page.page.evaluate("history.length") <= 2
    assert KEY not in page.page.content()
    page.page.reload()
    page.connected()  # this tab still knows it


def test_a_key_in_a_new_fragment_of_an_open_page_is_taken_too(serve: Serve, visit: Open) -> None:
    page = visit(serve().url)
    page.expect("#key-form").to_be_visible()
    page.page.evaluate("(hash) => (location.hash = hash)", f"#key={KEY}")
    page.connected()
    assert KEY not in page.page.evaluate("location.href")


def test_without_a_key_the_page_asks_for_one(serve: Serve, visit: Open) -> None:
    page = visit(serve().url)
    page.expect("#state-words").to_have_text("Not connected")
    page.expect("#speak").to_be_disabled()
    page.expect("#key").to_be_focused()
    page.page.keyboard.type(KEY)
    page.page.keyboard.press("Enter")
    page.connected()
    page.expect("#key-form").to_be_hidden()


def test_p17_a_wrong_key_is_refused_in_words_and_not_tried_again(serve: Serve, visit: Open) -> None:
    page = visit(serve().url + "#key=wrong")
    page.notice("The key was not accepted.")
    page.expect("#notice-next").to_be_hidden()
    page.expect("#state-words").to_have_text("Not connected")
    page.page.get_by_label("Key", exact=True).fill(KEY)
    page.press("Connect")
    page.connected()
    page.no_notice()


def test_a_key_that_a_browser_cannot_send_is_explained(serve: Serve, visit: Open) -> None:
    page = visit(serve().url)
    page.page.get_by_label("Key", exact=True).fill("a+b/c=")
    page.press("Connect")
    page.expect("#key-problem").to_contain_text("cannot send a key with “/” in it")
    page.expect("#key").to_be_focused()


def test_changing_the_key_forgets_the_old_one(serve: Serve, visit: Open) -> None:
    page = visit(serve().with_key)
    page.connected()
    page.press("Change key")
    page.expect("#state-words").to_have_text("Not connected")
    page.page.reload()
    page.expect("#key-form").to_be_visible()


def test_p17_a_full_server_is_tried_again_until_there_is_room(serve: Serve, visit: Open) -> None:
    backend = serve(MAX_CONCURRENT_CONNECTIONS="1")
    first = visit(backend.with_key)
    first.connected()
    second = visit(backend.with_key)
    second.notice("All places are taken.", "Next attempt in")
    first.page.close()
    second.connected()
    second.no_notice()


def test_p17_a_starting_engine_is_waited_for(serve: Serve, visit: Open) -> None:
    """The countdown starts no earlier than the server advises, and can be cut short."""
    backend = serve(Script(start_s=2))
    page = visit(backend.with_key)
    page.notice("The recogniser is starting.")
    page.expect("#notice-countdown").to_have_text(re.compile("^Next attempt in [5-8] s$"))
    page.expect("#notice-countdown").to_have_text(re.compile("^Next attempt in [34] s$"))
    backend.until_ready()
    page.press("Try now")
    page.connected()
    page.no_notice()


def test_p16_a_drain_lets_the_utterance_finish_and_says_why_it_is_over(
    serve: Serve, visit: Open
) -> None:
    backend = serve()
    page = visit(backend.with_key)
    page.connected()
    said = speech(1.5)
    page.drop_file(wav(said))
    page.speaks()
    backend.drain()
    page.utterance(1, "done", words(said))
    page.notice("The server is being restarted.", "Next attempt in")
    page.notice("The server cannot be reached.", "Next attempt in")


def test_a_page_with_nothing_to_say_sleeps_until_it_has(serve: Serve, visit: Open) -> None:
    page = visit(serve(WS_IDLE_TIMEOUT_S="1").with_key)
    page.notice("Paused, since nothing was said for a while.", "Press Speak to go on.")
    page.expect("#state-words").to_have_text("Paused")
    page.press("Speak")
    page.speaks()
    page.no_notice()
    page.press("Stop")
    page.utterance(1, "done")


def test_the_longest_duration_ends_a_connection_and_not_the_speech(
    serve: Serve, visit: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first connection is that old when the test says so: a busy machine may take seconds until
    the page speaks, and miss a notice that stands for one."""
    old = trio.Event()
    ages = chain([old.wait], repeat(trio.sleep_forever))
    clock = SimpleNamespace(sleep=lambda _seconds: next(ages)())
    monkeypatch.setattr(duration, "trio", clock)
    backend = serve()
    page = visit(backend.with_key, script=REMEMBER_NOTICES)
    page.connected()
    page.press("Speak")
    page.speaks(1)
    backend.call(old.set)
    page.utterance(1, "done")
    page.speaks(2)
    page.press("Stop")
    page.utterance(2, "done")
    told = page.page.evaluate("told")
    assert told == ["This connection was open for as long as one may be."]
