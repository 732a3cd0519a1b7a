"""An utterance goes over from one engine stream to the next, and its text is that of one stream."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.connection.endings import cancel, end, leave
from tests.connection.fakes import Connection, connected, house, make_settings
from tests.connection.speakers import (
    LIVE,
    listening,
    seconds,
    speak,
    until_it_rolled,
    until_it_rolls,
)
from tests.engine.scripted import FRAME, Script
from tests.utterance.hearing import Spoken, audio_of, sentence, text_of
from tests.utterance.talking import phrases
from voxtral_actors.connection.rolls import policy
from voxtral_actors.protocol import events

SPEECH = phrases(sentence(90), 2)
"""75 seconds, with a pause after every second word."""
RUSHED = sentence(100, silence=2)
"""32 seconds without a pause that deserves the name."""
PAUSES_S, LIMIT_S = 12.0, 6.0
"""Lengths of segments that have pauses at their ends, and others."""
EARS = listening(SPEECH)


async def test_p13_an_utterance_rolls_in_pauses_and_its_text_is_that_of_one_stream() -> None:
    async with connected(LIVE, part=EARS, segment_s=PAUSES_S) as connection:
        await speak(connection, audio_of(SPEECH, 50))
        done = await connection.client.hear(events.Done, "a")
        streams, figures = connection.house.streams, connection.house.figures

    assert done.text == text_of(SPEECH)
    assert figures.segments == {"pause": len(streams) - 1}
    assert len(streams) >= 5
    assert max(map(seconds, streams)) < 1.2 * PAUSES_S + 1
    assert not figures.replays
    assert figures.journals() == (0, 0)
    assert figures.ended == {"done": 1}


async def test_p13_where_nobody_pauses_it_rolls_at_the_limit() -> None:
    async with connected(LIVE, part=listening(RUSHED), segment_s=LIMIT_S) as connection:
        await speak(connection, audio_of(RUSHED, 50))
        done = await connection.client.hear(events.Done, "a")
        streams, figures = connection.house.streams, connection.house.figures

    assert done.text == text_of(RUSHED)
    assert figures.segments == {"length": len(streams) - 1}
    assert len(streams) >= 4
    assert max(map(seconds, streams)) < 1.2 * LIMIT_S + 2


async def test_p13_an_engine_that_does_not_wear_out_rolls_only_if_told_and_only_in_pauses() -> None:
    calm = attrs.evolve(LIVE, rolls=False)
    for speech, length, rolls in ((SPEECH, None, 0), (SPEECH, PAUSES_S, 5), (RUSHED, LIMIT_S, 0)):
        async with connected(calm, part=listening(speech), segment_s=length) as connection:
            await speak(connection, audio_of(speech, 50))
            assert (await connection.client.hear(events.Done, "a")).text == text_of(speech)
            assert connection.house.figures.segments["pause"] >= rolls
            assert len(connection.house.streams) == connection.house.figures.segments.total() + 1
            assert rolls or len(connection.house.streams) == 1


@pytest.mark.parametrize(
    ("script", "length"), [(LIVE, 0), (LIVE, None), (attrs.evolve(LIVE, spare=0), PAUSES_S)]
)
async def test_p13_there_is_one_stream_without_rolls(script: Script, length: float | None) -> None:
    async with connected(script, part=EARS, segment_s=length) as connection:
        await speak(connection, audio_of(SPEECH, 50))
        assert (await connection.client.hear(events.Done, "a")).text == text_of(SPEECH)
        assert len(connection.house.streams) == 1


@pytest.mark.parametrize(("speech", "length"), [(SPEECH, PAUSES_S), (RUSHED, LIMIT_S)])
async def test_p13_live_text_does_not_wait_for_a_roll(speech: list[Spoken], length: float) -> None:
    """Each word comes when it would have come from one stream, and a step or two later at most."""
    came: list[list[tuple[int, float]]] = []
    for segment_s in (0, length):
        async with connected(LIVE, part=listening(speech), segment_s=segment_s) as connection:
            client = connection.client
            times: list[tuple[int, float]] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(speak, connection, audio_of(speech, 50))
                while not client.events("a") or not isinstance(client.events("a")[-1], events.Done):
                    await trio.sleep(0.02)
                    deltas = [e.delta for e in client.events("a") if isinstance(e, events.Delta)]
                    times.append((len("".join(deltas)), trio.current_time()))
            came.append(times)

    def at(times: list[tuple[int, float]], length: int) -> float:
        start = times[0][1]
        return next(time for said, time in times if said >= length) - start

    lates = [at(came[1], n) - at(came[0], n) for n in range(1, len(text_of(speech)), 7)]
    print(f"latest {max(lates):.2f} s")
    assert max(lates) < 1.5 if speech is RUSHED else max(lates) < 0.5


async def test_p13_two_that_want_to_roll_at_once_share_a_spare_slot() -> None:
    """One of them rolls a little later; neither loses a word, and nobody's slot is taken."""
    async with house(LIVE, part=EARS) as here:
        async with here.connect(segment_s=PAUSES_S) as one, here.connect(segment_s=PAUSES_S) as two:
            async with trio.open_nursery() as nursery:
                for connection in (one, two):
                    nursery.start_soon(speak, connection, audio_of(SPEECH, 50))
            for connection in (one, two):
                done = await connection.client.hear(events.Done, "a")
                assert done.text == text_of(SPEECH)
        assert here.engine.statistics().rolls_refused > 0
        assert here.engine.statistics().streams_refused == 0
        assert here.figures.segments["pause"] + here.figures.segments["length"] >= 10


async def test_p13_a_roll_keeps_nobody_out_and_lets_nobody_more_in() -> None:
    slow = attrs.evolve(LIVE, step_s=0.07)  # so that last words take a while
    async with (
        house(slow, part=listening(RUSHED)) as here,
        here.connect(segment_s=LIMIT_S) as one,
        here.connect() as two,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(speak, one, audio_of(RUSHED))
        await until_it_rolls(one)
        two.client.start("b")
        await wait_all_tasks_blocked()
        two.client.finalise("b")
        two.client.start("c")
        await wait_all_tasks_blocked()
        statistics = here.engine.statistics()
        assert (statistics.slots_rolling, statistics.slots_taken) == (1, 3)
        assert two.client.the(events.Error).reason_code == "no_engine_slot"
        await until_it_rolled(one)
        assert (await one.client.hear(events.Done, "a")).text == text_of(RUSHED)


# --- Trouble in the middle of a roll -----------------------------------------------------------


def die(connection: Connection) -> None:
    connection.house.scripted.kill()


def lose(which: int) -> Callable[[Connection], None]:
    def fail(connection: Connection) -> None:
        part = connection.house.streams[which]
        part.script = attrs.evolve(part.script, fail_after=0)

    fail.__name__ = {-1: "lose_the_new_one", -2: "lose_the_old_one"}[which]
    return fail


@pytest.mark.parametrize(
    ("speech", "length"),
    [(SPEECH, PAUSES_S), (RUSHED, LIMIT_S)],
    ids=["in_a_pause", "at_the_limit"],
)
@pytest.mark.parametrize("befall", [die, lose(-2), lose(-1)])
@pytest.mark.parametrize("roll", [1, 3])
async def test_p13_p15_a_loss_while_it_rolls_costs_no_word(
    befall: Callable[[Connection], None], roll: int, speech: list[Spoken], length: float
) -> None:
    ears = listening(speech)
    async with connected(LIVE, part=ears, segment_s=length) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak, connection, audio_of(speech, 50))
            await until_it_rolls(connection, roll)
            befall(connection)
        done = await connection.client.hear(events.Done, "a")
        assert connection.house.figures.replays.total() == 1

    assert done.text == text_of(speech)


async def test_p13_p10_a_stream_that_never_ends_when_the_next_one_has_begun_is_given_up() -> None:
    settings = {"segment_s": PAUSES_S, "backpressure_timeout_s": 8}
    pcm = audio_of(SPEECH, 50)
    async with connected(LIVE, part=EARS, **settings) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(speak, connection, pcm)
        await until_it_rolls(connection)
        nursery.cancel_scope.cancel()
    hangs = attrs.evolve(LIVE, hang_after=connection.house.streams[0].fed // 2 - FRAME)
    async with connected(LIVE, [hangs], part=EARS, **settings) as connection:
        await speak(connection, pcm)
        assert (await connection.client.hear(events.Done, "a")).text == text_of(SPEECH)
        assert connection.house.figures.replays == {"stalled": 1}


@pytest.mark.parametrize("later", [0, 0.1, 0.3, 0.6, 1, 1.5, 2])
async def test_p13_p15_a_loss_while_the_seam_is_found_costs_no_word(later: float) -> None:
    ears = listening(RUSHED)
    async with connected(LIVE, part=ears, segment_s=LIMIT_S) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak, connection, audio_of(RUSHED, 50))
            await until_it_rolls(connection)
            await until_it_rolled(connection)
            await trio.sleep(later)
            die(connection)
        assert (await connection.client.hear(events.Done, "a")).text == text_of(RUSHED)


async def finish(connection: Connection) -> None:
    connection.client.finalise("a")
    text = (await connection.client.hear(events.Done, "a")).text
    assert text_of(SPEECH).startswith(text)
    assert len(text) > 20


async def barge_in(connection: Connection) -> None:
    connection.client.utter("b", audio_of(SPEECH[:10], 50))
    await connection.client.hear(events.Cancelled, "a")
    assert (await connection.client.hear(events.Done, "b")).text == text_of(SPEECH[:10])


async def drain(connection: Connection) -> None:
    """Wound down in the middle of a roll, it says all that it has heard."""
    connection.house.drain.start(trio.current_time() + 6)
    await connection.ended()
    assert text_of(SPEECH).startswith(connection.client.the(events.Done, "a").text)


@pytest.mark.parametrize("go_on", [finish, cancel, barge_in, leave, end, drain])
@pytest.mark.parametrize("roll", [1, 2])
async def test_p5_p11_an_utterance_that_rolls_can_end_in_any_way(
    go_on: Callable[[Connection], Awaitable[None]], roll: int
) -> None:
    """No task and no slot of it is left; `house` sees to that."""
    async with (
        connected(LIVE, part=EARS, segment_s=PAUSES_S, close_grace_s=2) as connection,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(speak, connection, audio_of(SPEECH))
        await until_it_rolls(connection, roll)
        if go_on is not drain:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await go_on(connection)
        else:
            await drain(connection)
            nursery.cancel_scope.cancel()
        figures = connection.house.figures
        assert figures.journals()[0] == 0
        assert figures.segments["pause"] == roll


def test_p13_lengths_differ_from_utterance_to_utterance() -> None:
    policies = [policy(make_settings(), LIVE.info, f"me/{n}") for n in range(50)]
    lengths = sorted(p.target_s for p in policies)
    assert 270 <= lengths[0] < 280 < 320 < lengths[-1] <= 330
    assert {p.limit_s for p in policies} == {360}
    assert max(b - a for a, b in itertools.pairwise(lengths)) < 8
