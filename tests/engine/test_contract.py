"""What every engine promises behind the engine actor, whichever library it is made of.

The first test feeds odd pieces of audio, the others even ones: both have to give the same text.

A new engine joins with one more entry in `ENGINES`: how to make it, audio with its text, and how to
kill it. Time is real here, for the engines are: nothing is measured, and everything has a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from importlib.util import find_spec

import attrs
import pytest
import trio

from tests.engine.engine_harness import SPEC, feed_in_pieces, hear, running, say, until
from tests.engine.scripted import Script, Scripted, speech, transcript
from voxtral_actors import limits
from voxtral_actors.engine.port import (
    Backend,
    EngineFullError,
    EngineUnavailableError,
    Failed,
    Finished,
)
from voxtral_actors.engine.sphinx import SphinxBackend

SLOTS = 3
LIMIT_S = 30


@attrs.frozen
class Subject:
    """One engine under test, with `SLOTS` slots."""

    make: Callable[[], Backend]
    said: list[tuple[bytes, str]]
    """Audio and its text; with different texts where that is cheap."""
    kill: Callable[[], object]
    """Ends the life that is ready now."""


def scripted_on_trio() -> Subject:
    scripted = Scripted(Script(slots=SLOTS))
    return Subject(scripted.backend, _synthetic(), scripted.kill)


def scripted_in_loop_thread() -> Subject:
    scripted = Scripted(Script(slots=SLOTS))
    return Subject(scripted.hosted, _synthetic(), scripted.kill)


def sphinx() -> Subject:
    soundfile = pytest.importorskip("soundfile")
    demo = files("voxtral_actors.demo")
    with demo.joinpath("sample.flac").open("rb") as file:
        samples, _ = soundfile.read(file, dtype="int16")
    first_sentence = "we will meet again tomorrow morning"
    assert demo.joinpath("sample.txt").read_text("utf-8").startswith(first_sentence)
    lives: list[SphinxBackend] = []

    def make() -> SphinxBackend:
        lives.append(SphinxBackend(SLOTS))
        return lives[-1]

    def kill() -> None:
        assert lives[-1]._nursery is not None
        lives[-1]._nursery.cancel_scope.cancel()

    pcm = samples[: 5 * limits.SAMPLE_RATE // 2].tobytes()
    return Subject(make, [(pcm, first_sentence)], kill)


def _synthetic() -> list[tuple[bytes, str]]:
    pieces = [speech(2.03, seed) for seed in range(SLOTS)]
    return [(pcm, transcript(pcm)) for pcm in pieces]


ENGINES = [
    scripted_on_trio,
    scripted_in_loop_thread,
    pytest.param(
        sphinx, marks=pytest.mark.skipif(not find_spec("pocketsphinx"), reason="not installed")
    ),
]


@pytest.fixture(params=ENGINES)
def subject(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Subject:
    monkeypatch.setattr(limits, "ENGINE_RESTART_FIRST_S", 0.01)
    made = request.param()
    assert isinstance(made, Subject)
    return made


async def test_text_and_position_are_exact_however_the_audio_is_cut(subject: Subject) -> None:
    pcm, text = subject.said[0]
    with trio.fail_after(LIMIT_S):
        async with running(subject.make) as actor:
            heard = await say(actor, pcm, seed=1)

    assert heard.text == text
    assert isinstance(heard.last, Finished)
    assert heard.last.consumed == len(pcm) // limits.BYTES_PER_SAMPLE
    assert max(heard.positions) <= heard.last.consumed


async def test_finish_without_audio_is_an_empty_utterance(subject: Subject) -> None:
    with trio.fail_after(LIMIT_S):
        async with running(subject.make) as actor:
            stream = actor.open(SPEC)
            stream.finish()

            heard = await hear(stream)

    assert heard.text == ""
    assert heard.last == Finished(0)


async def test_each_stream_gets_its_own_text(subject: Subject) -> None:
    said = [subject.said[n % len(subject.said)] for n in range(SLOTS)]
    texts: dict[int, str] = {}
    with trio.fail_after(LIMIT_S):
        async with running(subject.make) as actor, trio.open_nursery() as nursery:

            async def speak(number: int) -> None:
                texts[number] = (await say(actor, said[number][0], seed=number)).text

            for number in range(SLOTS):
                nursery.start_soon(speak, number)

    assert [texts[number] for number in range(SLOTS)] == [text for _, text in said]


async def test_abort_ends_the_stream_and_frees_the_slot_at_any_time(subject: Subject) -> None:
    pcm, text = subject.said[0]
    with trio.fail_after(LIMIT_S):
        async with running(subject.make) as actor:
            before_audio = actor.open(SPEC)
            before_audio.abort()

            midway = actor.open(SPEC)
            feed_in_pieces(midway, pcm)
            await midway.receive()
            midway.abort()
            midway.abort()

            finishing = actor.open(SPEC)
            feed_in_pieces(finishing, pcm)
            finishing.finish()
            finishing.abort()

            for stream in (before_audio, midway, finishing):
                with pytest.raises(trio.EndOfChannel):
                    await stream.receive()
            await until(lambda: actor.statistics().slots_taken == 0)
            midway.abort()
            assert (await say(actor, pcm)).text == text


async def test_calls_after_the_end_are_harmless(subject: Subject) -> None:
    pcm, text = subject.said[0]
    with trio.fail_after(LIMIT_S):
        async with running(subject.make) as actor:
            stream = actor.open(SPEC)
            stream.feed(pcm)
            stream.finish()
            stream.finish()
            stream.feed(pcm)  # too late to be heard
            heard = await hear(stream)
            assert heard.text == text

            for _ in range(2):
                stream.feed(pcm)
                stream.finish()
                stream.abort()
            with pytest.raises(trio.EndOfChannel):
                await stream.receive()


async def test_a_stream_too_many_is_refused_until_a_slot_is_free(subject: Subject) -> None:
    with trio.fail_after(LIMIT_S):
        async with running(subject.make) as actor:
            streams = [actor.open(SPEC) for _ in range(SLOTS)]
            with pytest.raises(EngineFullError):
                actor.open(SPEC)
            assert actor.statistics().slots_taken == SLOTS

            streams[0].abort()
            streams[1].finish()
            await hear(streams[1])
            await until(lambda: actor.statistics().slots_taken == SLOTS - 2)
            actor.open(SPEC)
            actor.open(SPEC)
            with pytest.raises(EngineFullError):
                actor.open(SPEC)


async def test_cancelling_the_actor_ends_streams_and_leaves_nothing(subject: Subject) -> None:
    pcm, _ = subject.said[0]
    with trio.fail_after(LIMIT_S):
        async with running(subject.make) as actor:
            live, aborted, idle = (actor.open(SPEC) for _ in range(SLOTS))
            live.feed(pcm)
            aborted.feed(pcm)
            aborted.abort()
            await trio.lowlevel.checkpoint()
        # `running` has looked for threads and processes.
        for stream in (live, idle):
            assert isinstance((await hear(stream)).last, Failed)
        with pytest.raises(EngineUnavailableError):
            actor.open(SPEC)


async def test_p15_streams_hear_of_the_engines_death_and_the_next_life_serves(
    subject: Subject,
) -> None:
    pcm, text = subject.said[0]
    with trio.fail_after(LIMIT_S):
        async with running(subject.make) as actor:
            live, aborted, idle = (actor.open(SPEC) for _ in range(SLOTS))
            feed_in_pieces(live, pcm)
            await live.receive()
            aborted.abort()

            subject.kill()
            for stream in (live, idle):
                last = (await hear(stream)).last
                assert isinstance(last, Failed)
                assert last.reason_code == "engine_lost"
                assert last.retryable
            assert (await hear(aborted)).last is None
            assert actor.info is None
            with pytest.raises(EngineUnavailableError):
                actor.open(SPEC)

            await actor.wait_ready()
            assert actor.statistics().slots_taken == 0
            assert (await say(actor, pcm)).text == text
            assert actor.statistics().deaths == 1
