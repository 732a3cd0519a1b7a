"""A model that falls silent over speech, and stays so, is heard out by a fresh stream (P14)."""

from __future__ import annotations

import attrs
import pytest
import trio

from tests.connection.fakes import Connection, connected, house
from tests.connection.speakers import LIVE, listening, speak
from tests.engine.scripted import Script
from tests.utterance.hearing import TIMING, audio_of, sentence, text_of
from tests.utterance.talking import phrases
from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.protocol import events

SPEECH = phrases(sentence(120), 2)
"""100 seconds, nearly half of them words."""
EARS = listening(SPEECH)
RUT_S = 10.0
RUT = attrs.evolve(LIVE, mute_after=RUT_S * SAMPLE_RATE)
MUTE_S = 4.0
HEALED_S = 2.2 * (MUTE_S + TIMING.lag / SAMPLE_RATE) + 5 + 1
"""So much speech and the engine's lag, with the pauses in it; what has to be heard again, at twice
the pace; and the step of a test."""


def text(connection: Connection) -> str:
    said = connection.client.events("a")
    return "".join(event.delta for event in said if isinstance(event, events.Delta))


async def rut(connection: Connection) -> float:
    """Speak; returns the longest time without text."""
    longest, since, length = 0.0, trio.current_time(), 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak, connection, audio_of(SPEECH, 50))
        while not any(isinstance(event, events.Done) for event in connection.client.events("a")):
            await trio.sleep(0.05)
            if len(text(connection)) > length:
                since, length = trio.current_time(), len(text(connection))
            longest = max(longest, trio.current_time() - since)
    return longest


async def test_p14_a_rut_is_healed_within_seconds_and_counted() -> None:
    async with connected(LIVE, [RUT], part=EARS, mute_s=MUTE_S) as connection:
        assert await rut(connection) < HEALED_S
        figures = connection.house.figures
        assert figures.segments == figures.replays == {"mute": 1}
        assert figures.replayed_s < HEALED_S + 3
        assert connection.house.engine.statistics().deaths == 0
        assert text(connection) == text_of(SPEECH)


async def test_p14_a_rut_in_audio_that_is_complete_already_is_healed_too() -> None:
    """Whoever sends faster than live has said all of it before the engine has heard it."""
    settings = {"mute_s": MUTE_S, "max_audio_backlog_s": 200}
    async with connected(LIVE, [RUT], part=EARS, **settings) as connection:
        await speak(connection, audio_of(SPEECH, 50), pace=0)
        assert (await connection.client.hear(events.Done, "a")).text == text_of(SPEECH)
        assert connection.house.figures.replays == {"mute": 1}


async def test_p14_each_rut_of_several_is_healed() -> None:
    async with connected(LIVE, [RUT, RUT, RUT], part=EARS, mute_s=MUTE_S) as connection:
        assert await rut(connection) < HEALED_S
        assert connection.house.figures.replays == {"mute": 3}
        assert text(connection) == text_of(SPEECH)


@pytest.mark.parametrize(
    ("script", "mute_s"),
    [(LIVE, 0), (attrs.evolve(LIVE, rolls=False), MUTE_S), (attrs.evolve(LIVE, spare=0), MUTE_S)],
    ids=["off", "not_of_that_kind", "no_spare_slot"],
)
async def test_p14_off_means_off(script: Script, mute_s: float) -> None:
    mute = attrs.evolve(script, mute_after=RUT.mute_after)
    async with connected(script, [mute], part=EARS, mute_s=mute_s) as connection:
        await rut(connection)
        assert len(connection.house.streams) == 1
        assert text_of(SPEECH).startswith(text(connection))


async def test_p14_who_is_not_a_word_to_any_stream_is_not_asked_for_ever() -> None:
    """Singing, perhaps: after each try in vain the next one waits for longer."""
    deaf = attrs.evolve(LIVE, mute_after=0)
    async with connected(deaf, part=EARS, mute_s=MUTE_S) as connection:
        await speak(connection, audio_of(SPEECH, 50))
        assert (await connection.client.hear(events.Done, "a")).text == ""
        assert connection.house.figures.replays == {"mute": 2}


async def test_p14_silence_is_no_rut() -> None:
    """Whoever says nothing for a minute gets nothing, and keeps the stream."""
    pcm = audio_of(SPEECH[:10]) + bytes(2 * 60 * SAMPLE_RATE) + audio_of(SPEECH[10:20], 50)
    async with connected(LIVE, part=listening(SPEECH[:20]), mute_s=MUTE_S) as connection:
        await speak(connection, pcm)
        await connection.client.hear(events.Done, "a")
        assert not connection.house.figures.replays


async def test_p14_a_rut_that_finds_no_spare_slot_is_healed_a_little_later() -> None:
    """Another utterance rolls at that moment, and its old stream takes its time to end."""
    slow = attrs.evolve(LIVE, slots=3, mute_after=RUT.mute_after)
    async with house(LIVE, [slow, slow], part=EARS) as here:
        async with here.connect(mute_s=MUTE_S) as one, here.connect(mute_s=MUTE_S) as two:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rut, one)
                nursery.start_soon(rut, two)
            assert text(one) == text(two) == text_of(SPEECH)
        assert here.figures.replays == {"mute": 2}


@pytest.mark.parametrize("later", [0, 0.2, 1, 3])
async def test_p14_p15_a_loss_after_a_rut_costs_no_word(later: float) -> None:
    async with connected(LIVE, [RUT], part=EARS, mute_s=MUTE_S) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak, connection, audio_of(SPEECH, 50))
            while not connection.house.figures.replays:  # noqa: ASYNC110 - nobody signals it
                await trio.sleep(0.05)
            await trio.sleep(later)
            connection.house.scripted.kill()
        assert (await connection.client.hear(events.Done, "a")).text == text_of(SPEECH)
        assert connection.house.figures.replays == {"mute": 1, "lost": 1}


async def test_p14_a_stream_with_text_overdue_is_not_left_in_a_pause() -> None:
    """It would have been about to roll: the words that it has not said would be lost."""
    rut = attrs.evolve(LIVE, mute_after=15 * SAMPLE_RATE)
    settings = {"segment_s": 20.0, "mute_s": 2.0}
    async with connected(LIVE, [rut], part=EARS, **settings) as connection:
        await speak(connection, audio_of(SPEECH, 50))
        assert (await connection.client.hear(events.Done, "a")).text == text_of(SPEECH)
        assert connection.house.figures.replays == {"mute": 1}
