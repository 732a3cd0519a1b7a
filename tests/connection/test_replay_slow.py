"""Words keep their places when nobody fetches them in time: another hearing of the same audio goes
on behind the right one."""

from __future__ import annotations

import attrs
import pytest
import trio

from tests.connection.fakes import connected
from tests.connection.speakers import LIVE, listening, speak
from tests.utterance.hearing import audio_of, sentence, text_of
from voxtral_actors.limits import OUTBOUND_EVENTS, SAMPLE_RATE
from voxtral_actors.protocol import events

SPEECH = sentence(70)


@pytest.mark.parametrize("late", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("dead", [False, True])
async def test_p14_p15_a_text_is_not_about_what_was_used_after_it(late: float, dead: bool) -> None:
    """The client does not read when the model falls silent, so its last words wait in the stream
    while the engine goes on without a word."""
    rut = attrs.evolve(LIVE, mute_after=6 * SAMPLE_RATE)
    settings = {"mute_s": 4.0, "write_deadline_s": 60}
    async with connected(LIVE, [rut], part=listening(SPEECH), **settings) as connection:
        client = connection.client
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak, connection, audio_of(SPEECH, 50))
            await trio.sleep(4.8 + late)
            client.stop_reading()
            for _ in range(OUTBOUND_EVENTS + 1):
                client.say("ping")
            await trio.sleep(4)
            if dead:
                connection.house.scripted.kill()
            client.read_again()
        assert (await client.hear(events.Done, "a")).text == text_of(SPEECH)
