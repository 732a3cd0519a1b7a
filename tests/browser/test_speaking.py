"""Speaking on the page: the microphone, a recording, and everything that ends an utterance early.

Behind the page is the real server with the scripted engine, whose text is a function of the audio:
a word that is missing or doubled on the way from the browser shows.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from tests.browser.backend import Backend
from tests.browser.visiting import Visit
from tests.engine import script as scripting
from tests.engine.scripted import Script, speech, transcript
from voxtral_actors.limits import SAMPLE_RATE

Serve = Callable[..., Backend]
Open = Callable[..., Visit]


def wav(pcm: bytes, rate: int = SAMPLE_RATE) -> bytes:
    """PCM16 as a file that a browser can decode."""
    file = io.BytesIO()
    samples = np.frombuffer(pcm, dtype="<i2")
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def words(pcm: bytes) -> str:
    return " ".join(transcript(pcm).split())


def test_what_is_spoken_appears_while_it_is_spoken_and_settles(serve: Serve, visit: Open) -> None:
    page = visit(serve().with_key)
    page.connected()
    page.press("Speak")
    page.speaks()
    page.expect("#activity").to_have_text(re.compile(r"^Text \d+\.\d s behind$"))
    page.press("Stop")
    page.utterance(1, "done", re.compile(r"\w+"))
    page.expect("#speak").to_have_text("Speak")
    page.expect("#announcer").to_have_text(page.text(1))


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "live"])
def test_every_sample_of_a_recording_reaches_the_engine(
    serve: Serve, visit: Open, fast: bool
) -> None:
    said = speech(12 if fast else 1.13)
    backend = serve()
    page = visit(backend.with_key)
    page.connected()
    page.page.set_checked("#fast", fast)
    page.drop_file(wav(said))
    page.utterance(1, "done", words(said))
    assert backend.heard() == len(said) // 2


def test_a_file_that_is_no_audio_is_refused_in_words(serve: Serve, visit: Open) -> None:
    page = visit(serve().with_key)
    page.connected()
    with page.page.expect_file_chooser() as chooser:
        page.press("Open a file")
    chooser.value.set_files({"name": "poem.txt", "mimeType": "audio/wav", "buffer": b"no audio"})
    page.notice("The file cannot be used.", "The browser cannot read it as audio.")
    page.press("Dismiss")
    page.no_notice()
    page.expect("#speak").to_be_enabled()


def test_starting_over_interrupts_what_is_being_said(serve: Serve, visit: Open) -> None:
    page = visit(serve().with_key)
    page.connected()
    page.press("Speak")
    page.speaks(1)
    page.press("Start over")
    page.utterance(1, "cancelled")
    page.expect("#transcript > li:nth-child(1) .label").to_have_text("interrupted")
    page.speaks(2)
    page.press("Stop")
    page.utterance(2, "done")


def test_speaking_interrupts_a_recording(serve: Serve, visit: Open) -> None:
    page = visit(serve().with_key)
    page.connected()
    page.drop_file(wav(speech(30)))
    page.speaks(1)
    page.press("Speak")
    page.utterance(1, "cancelled")
    page.speaks(2)
    page.drop_file(wav(speech(0.5)))
    page.utterance(2, "cancelled")
    page.utterance(3, "done", words(speech(0.5)))


@pytest.mark.parametrize("by", ["button", "key"])
def test_cancel_ends_it_and_nothing_comes_after(serve: Serve, visit: Open, by: str) -> None:
    backend = serve()
    page = visit(backend.with_key)
    page.connected()
    page.press("Speak")
    page.speaks()
    page.press("Cancel") if by == "button" else page.page.keyboard.press("Escape")
    page.utterance(1, "cancelled")
    before = page.text(1), backend.heard()
    page.expect("#speak").to_have_text("Speak")
    page.expect("#cancel").to_be_disabled()
    page.drop_file(wav(speech(0.5)))
    page.utterance(2, "done", words(speech(0.5)))
    assert (page.text(1), backend.heard()) == (before[0], before[1] + SAMPLE_RATE // 2)


def test_cancel_reaches_an_utterance_that_is_being_finished(serve: Serve, visit: Open) -> None:
    page = visit(serve(Script(hang_after=SAMPLE_RATE // 4)).with_key)
    page.connected()
    page.drop_file(wav(speech(0.5)))
    page.utterance(1, "finalising")
    page.press("Cancel")
    page.utterance(1, "cancelled")


def test_text_is_never_more_than_text(
    serve: Serve, visit: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>&amp;'
    monkeypatch.setattr(scripting, "word", lambda frame: f" {evil}" if frame else "")
    page = visit(serve().with_key)
    page.connected()
    page.drop_file(wav(speech(0.16)), name=f"{evil}.wav")
    page.utterance(1, "done", f"{evil} {evil}")
    page.expect(".source").to_have_text(f"{evil}.wav")
    page.expect("#transcript img, #transcript script").to_have_count(0)
    assert page.page.evaluate("window.broken") is None


def test_an_engine_that_dies_ends_the_utterance_or_goes_on_with_it(
    serve: Serve, visit: Open
) -> None:
    backend = serve()
    page = visit(backend.with_key)
    page.connected()
    page.drop_file(wav(speech(1.5)))
    page.speaks()
    backend.kill_engine()
    item = page.expect("#transcript > li:nth-child(1)")
    item.to_have_attribute("data-state", re.compile("^(failed|done)$"))
    backend.until_ready()
    page.drop_file(wav(speech(0.5)))
    page.utterance(2, "done", words(speech(0.5)))


def test_what_is_said_while_the_connection_is_away_is_kept(serve: Serve, visit: Open) -> None:
    """The microphone goes on; the new connection gets all that was said since the old one broke."""
    backend = serve()
    page = visit(backend.with_key)
    page.connected()
    page.press("Speak")
    page.speaks(1)
    backend.drop_connections()
    page.utterance(1, "failed")
    page.expect("#transcript > li:nth-child(1) .label").to_have_text("The connection was lost.")
    page.notice("The connection was lost.", "Next attempt in")
    page.utterance(2, "waiting")
    page.speaks(2)
    page.no_notice()
    page.press("Stop")
    page.utterance(2, "done")
