"""The page's modules that need no page: resampling, framing, pauses, the words for every ending.

They run where they run in production, in the browser, imported from the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.backend import Backend, running
from tests.browser.visiting import Visit
from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.events import ERROR_CODES

Run = Callable[..., Any]

TONE = """const tone = (hertz, rate, seconds) => Float32Array.from(
  { length: rate * seconds }, (_, i) => Math.sin(2 * Math.PI * hertz * i / rate));
const rms = (samples) => Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
"""


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with running() as backend:
        yield backend


@pytest.fixture
def run(backend: Backend, visit: Callable[..., Visit]) -> Run:
    """Runs `body`, the inside of a function, on a module's exports, which it knows as `m`."""
    page = visit(backend.url).page

    def evaluate(module: str, body: str, argument: object = None) -> Any:
        wrapped = f"async (argument) => {{ const m = await import('/web/{module}'); {body} }}"
        return page.evaluate(wrapped, argument)

    return evaluate


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 96_000])
def test_resampling_is_the_same_in_blocks_of_any_length(run: Run, rate: int) -> None:
    body = """
    const input = Float32Array.from({ length: argument / 2 }, () => Math.random() - 0.5);
    const whole = new m.Resampler(argument, 16000);
    const expected = [...whole.push(input), ...whole.flush()];
    const parts = new m.Resampler(argument, 16000), got = [];
    for (let at = 0; at < input.length;) {
      const length = 1 + Math.floor(Math.random() * 400);
      got.push(...parts.push(input.subarray(at, at + length)));
      at += length;
    }
    got.push(...parts.flush());
    const off = Math.max(...got.map((x, i) => Math.abs(x - expected[i])));
    return [got.length, expected.length, off];
    """
    got, expected, off = run("resampler.js", body, rate)
    assert got == expected == SAMPLE_RATE // 2
    assert off < 1e-6


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_resampling_keeps_speech_and_removes_what_would_fold_into_it(run: Run, rate: int) -> None:
    """Decibels of tones after resampling: in the band unchanged, above it gone."""
    body = """
    return argument.tones.map((hertz) => {
      const output = new m.Resampler(argument.rate, 16000).push(tone(hertz, argument.rate, 1));
      return 20 * Math.log10(rms(output.subarray(1000, 15000)) * Math.SQRT2);
    });
    """
    kept, lost = [100, 1_000, 4_000, 6_000], [9_000, 12_000, 15_000]
    levels = run("resampler.js", TONE + body, {"rate": rate, "tones": kept + lost})
    assert max(map(abs, levels[: len(kept)])) < 0.1
    assert max(levels[len(kept) :]) < -60


def test_frames_are_whole_and_lose_no_sample(run: Run) -> None:
    body = """
    const frames = [];
    const framer = new m.Framer((pcm) => frames.push(pcm.length));
    for (const length of [1, 1279, 3000, 128, 500]) framer.push(new Float32Array(length));
    framer.flush();
    framer.flush();
    return frames;
    """
    assert run("pcm.js", body) == [1280, 1280, 1280, 1068]


def test_samples_are_clipped_and_rounded(run: Run) -> None:
    body = "return [...m.toPcm16(Float32Array.of(-2, -1, -0.5, 0, 0.5, 1, 2))]"
    assert run("pcm.js", body) == [-32768, -32768, -16384, 0, 16384, 32767, 32767]


def test_the_meter_reads_full_scale_silence_and_half_way(run: Run) -> None:
    body = "return argument.map((x) => m.loudness(new Int16Array(9).fill(x)))"
    silence, half, full = run("pcm.js", body, [0, round(32767 / 1000**0.5), 32767])
    assert silence == 0
    assert abs(half - 0.5) < 0.01
    assert abs(full - 1) < 0.01


def test_pauses_double_up_to_half_a_minute_and_are_left_to_chance(run: Run) -> None:
    body = """
    const failures = [1, 2, 3, 6, 50, 5000];
    return [0, 1].map((chance) => failures.map((n) => m.pauseBefore(n, undefined, () => chance)));
    """
    longest, shortest = run("backoff.js", body)
    assert longest == [1, 2, 4, 30, 30, 30]
    assert shortest == [seconds / 2 for seconds in longest]


def test_nobody_comes_back_earlier_than_the_server_advised(run: Run) -> None:
    body = "return [1, 2, 9].map((n) => [5, 60].map((s) => m.pauseBefore(n, s, () => 0)))"
    assert run("backoff.js", body) == [[5, 60], [10, 60], [30, 60]]


def test_p17_every_close_of_the_server_has_its_words_and_no_other_has(run: Run) -> None:
    rows = run("reasons.js", "return m.CLOSES")
    assert {slug: row["code"] for slug, row in rows.items()} == {
        close.spec.slug: close.spec.code for close in Close
    }
    for close in Close:
        row = rows[close.spec.slug]
        assert row["title"].endswith(".")
        assert row["advice"]
        # After a clean end nothing has to change for the next session: it is for the user to ask.
        again = {"retry", "ask"} if close.spec.retry else {"stop", "ask"}
        assert row["next"] in again - ({"stop"} if close is Close.NORMAL else set())
        if not close.spec.retry and close is not Close.NORMAL:
            assert row["next"] == "stop"


def test_every_error_code_has_its_words(run: Run) -> None:
    assert run("reasons.js", "return Object.keys(m.ERRORS).sort()") == sorted(ERROR_CODES)


def test_endings_that_no_table_knows_still_have_words(run: Run) -> None:
    body = """
    return [
      m.whyClosed({ code: 1006, reason: "", opened: true }).title,
      m.whyClosed({ code: 1006, reason: "", opened: false }).title,
      m.whyClosed({ code: 4999, reason: "constructor", opened: true }).title,
      m.whyFailed({ code: "toString", message: "said so" }),
      m.whyCancelled("constructor"),
      m.whyCancelled("idle_timeout"),
    ];
    """
    assert run("reasons.js", body) == [
        "The connection was lost.",
        "The server cannot be reached.",
        "The connection was lost.",
        "said so",
        "cancelled",
        "Paused, since nothing was said for a while.",
    ]
