"""The clients: what each kind does with its connection. Everything random comes from its story.

A plan runs until it is done or the server has closed the connection, which cancels it. Where a plan
waits for the server it has a limit, and what does not come in time is a violation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from tests.chaos.story import Story
from tests.server.wire_helpers import PING, frame
from voxtral_actors.limits import CLOSE_HANDSHAKE_S, HANDSHAKE_S, LAST_WORDS_S
from voxtral_actors.protocol.events import Cancelled, Error, Pong, SessionUpdated

Plan: TypeAlias = Callable[[Story], Awaitable[None]]

SLACK_S = 2.0
THROWN_OUT_S = 15.0
"""What a client is thrown out for may stand behind audio; but it must not come to idleness."""
TAILS = 3
"""Utterances that a polite client has finalised and not got yet: below the server's limit."""


async def speaker(story: Story) -> None:
    """Says a few things, hears all of them, and ends in good order."""
    rng = story.rng
    for _ in range(rng.randint(1, 4)):
        story.start()
        await story.speak(rng.choice((0.1, 0.5, 1.5, 3)), pace=rng.choice((0, 0, 0.5, 1)))
        story.finalise()
        if len([s for s in story.said.values() if story.terminal(s) is None]) >= TAILS:
            await story.settle()
        await trio.sleep(rng.choice((0, 0, 0.3, 2)))
    await goodbye(story)


WORDY_S = 9
"""A lecturer says more than this in each utterance that is heard to its end."""


async def lecturer(story: Story) -> None:
    """Speaks for long, as people do: with pauses. Now and then starts over or thinks better."""
    rng = story.rng
    for _ in range(rng.randint(1, 3)):
        story.start()
        pace, said = rng.choice((0, 0.3, 1, 1)), 0.0
        while said < WORDY_S or rng.random() < 0.7:
            length, pause = rng.choice((0.7, 1.5, 2.5)), rng.choice((0.1, 0.9, 1.3))
            await story.speak(length, pace=pace)
            story.hush(pause)
            await trio.sleep(pause * pace)
            said += length
            if said > WORDY_S / 2 and rng.random() < 0.04:
                break
        else:
            story.finalise()
            if rng.random() < 0.7:
                await story.settle()
            continue
        if (active := story.active) is not None and rng.random() < 0.5:
            story.cancel(active)
    if story.active:
        story.cancel(story.active)
    await goodbye(story)


async def goodbye(story: Story) -> None:
    await story.settle()
    story.end()
    await story.wait_closed(story.limit_s, "it said end")


async def barger(story: Story) -> None:
    """Talks over itself: starts the next utterance before the last one is over."""
    rng = story.rng
    for _ in range(rng.randint(2, 8)):
        story.start()
        await story.speak(rng.choice((0.1, 0.3, 1)), pace=rng.choice((0, 0, 1)))
        if rng.random() < 0.3:
            story.finalise()
            await story.settle()
        await trio.sleep(rng.choice((0, 0, 0.1)))
    if story.active:
        story.finalise()
    await goodbye(story)


async def canceller(story: Story) -> None:
    """Starts, speaks, cancels; sometimes what is being finalised; at last all at one moment."""
    rng = story.rng
    for number in range(rng.randint(2, 6)):
        said = story.start()
        await story.speak(rng.choice((0.1, 0.3, 1)), pace=rng.choice((0, 0, 1)))
        if rng.random() < 0.3:
            story.finalise()
            await trio.sleep(rng.choice((0, 0.05)))
        if number == 1:
            await story.go.wait()
        story.cancel(said)
        if rng.random() < 0.5:
            await story.settle([said])
    await goodbye(story)


async def half_spoken(story: Story) -> None:
    """Speaks and falls silent: never finalises, never says another word."""
    story.start()
    await story.speak(story.rng.choice((0.1, 1, 3)))
    # The engine's last word about what was said counts as activity.
    await until_timed_out(story, 10)


async def silent(story: Story) -> None:
    """Says nothing at all."""
    await until_timed_out(story, SLACK_S)


async def mumbler(story: Story) -> None:
    """Leaves the engine silence to work on: no text comes of that, so it is idle all the same."""
    story.start()
    for _ in range(story.rng.randint(4, 9)):
        story.hush(1.5)
    await until_timed_out(story, 5)


async def hasty(story: Story) -> None:
    """Asks for more at once than it may: gets as much as it may, and more when it has waited."""
    settings, client = story.peer.world.settings, story.peer.client
    most, over = settings.max_messages_per_window, story.rng.randint(1, 3)
    story.bad = over
    for _ in range(most + over):
        client.say("session.update", "update")
    await trio.sleep(settings.message_window_s + SLACK_S + 4 * story.toxics.delay_s)
    client.say("session.update", "update")
    await client.hear(Pong, _asked(story))
    heard = [type(event) for event in client.events("update")]
    given = heard.count(SessionUpdated), heard.count(Error)
    if given != (most + 1, over):
        story.peer.world.complain(f"P9 {story.name}: {given} of {most} a window")
    await goodbye(story)


def _asked(story: Story) -> str:
    story.peer.client.say("ping", "hasty")
    return "hasty"


async def until_timed_out(story: Story, slack_s: float) -> None:
    """Wait for the close by idleness or age. A wait for the engine is activity when it begins and
    when it ends; nobody gets younger by it."""
    settings, engine = story.peer.world.settings, story.peer.world.engine
    idle_s, age_s = settings.idle_timeout_s or math.inf, settings.max_duration_s or math.inf
    quiet_since = trio.current_time() + story.peer.unsent_s
    oldest = quiet_since + age_s + settings.close_grace_s
    while True:
        idle = quiet_since + idle_s
        await trio.sleep_until(min(idle, oldest) + slack_s)
        stirred = max((engine.stirred(name) for name in story.said), default=-math.inf)
        if oldest <= idle or stirred <= quiet_since:
            break
        quiet_since = stirred
    await story.wait_closed(0, "it is idle")


async def talker(story: Story) -> None:
    """Talks without end: only the server's maximal duration, or its stop, ends it."""
    while True:
        story.start()
        await story.speak(story.rng.choice((1, 4)))
        story.finalise()
        await story.settle()
        settings, age = story.peer.world.settings, trio.current_time() - story.peer.opened_at
        longest = settings.max_duration_s + settings.close_grace_s + story.limit_s
        if age > min(60, longest if settings.max_duration_s else math.inf):
            break
    await goodbye(story)


async def torrent(story: Story) -> None:
    """Sends a minute's worth of audio as fast as it is taken (P10)."""
    story.start()
    await story.speak(story.rng.choice((5, 12)), pace=0)
    story.finalise()
    await goodbye(story)


async def deaf(story: Story) -> None:
    """Asks and asks and reads no answer: must be cut within the write deadline (P3)."""
    peer, settings = story.peer, story.peer.world.settings
    await trio.sleep(story.rng.random())
    story.deaf = True
    peer.note("stops reading")
    peer.client.stop_reading()
    answer_bytes, queued = 300, 64
    for number in range(queued + 2 * 65_536 // answer_bytes):
        peer.client.say("ping", f"{number}" + "x" * 200)
        if number % 16 == 0:  # the answer to it has to wait for one that is not taken
            peer.wire(frame(PING, b"still there?"))
    await trio.sleep(settings.write_deadline_s + LAST_WORDS_S + CLOSE_HANDSHAKE_S + SLACK_S)
    await trio.sleep(peer.unsent_s + 4 * story.toxics.delay_s)
    if not peer.stream.link.downward.writer_closed and not story.toxics.loses:
        peer.world.complain(f"P3 {story.name} does not read and is still connected")
    peer.hang_up("reset")


async def pinger(story: Story) -> None:
    """Asks whether the server is there, and nothing else."""
    client = story.peer.client
    for number in range(story.rng.randint(1, 20)):
        client.say("ping", f"ping{number}")
        with trio.move_on_after(SLACK_S + 4 * story.toxics.delay_s) as patience:
            await client.hear(Pong, f"ping{number}")
        if patience.cancelled_caught and not story.toxics.loses:
            story.peer.world.complain(f"{story.name}: no pong")
        await trio.sleep(story.rng.uniform(0.1, 5))
    await goodbye(story)


async def vanisher(story: Story) -> None:
    """Leaves in the middle of a sentence, in one of the ways in which clients leave."""
    rng = story.rng
    for _ in range(rng.randint(0, 2)):
        story.start()
        await story.speak(rng.choice((0.1, 1)), pace=rng.choice((0, 1)))
        if rng.random() < 0.5:
            story.finalise()
    await trio.sleep(rng.choice((0, 0, 0.2, 3)))
    story.peer.hang_up(rng.choice(("close", "eof", "reset", "vanish")))


RUBBISH: tuple[str | bytes, ...] = (
    "", "{", "[]", "null", "1e999", '{"type":1}', "\x00", b"", b"odd", "{" * 2000,
    json.dumps({"type": "ping", "session_id": "", "request_id": "x"}),
    json.dumps({"type": "no.such.type", "session_id": "s", "request_id": "x"}),
    json.dumps({"type": "input_audio_buffer.append", "session_id": "s", "request_id": "x",
                "payload": {"audio": "!"}}),
)  # fmt: skip


async def babbler(story: Story) -> None:
    """Sends frames that are no messages, between ones that are, until it is thrown out or tires."""
    most = story.peer.world.settings.max_bad_messages
    story.start()
    for _ in range(story.rng.choice((3, most + 2))):
        story.peer.client.frame(story.rng.choice(RUBBISH))
        story.bad += 1
        if story.rng.random() < 0.3:
            story.audio(0.1)
            await trio.sleep(story.rng.choice((0, 0.1)))
    if most and story.bad >= most:
        await story.wait_closed(THROWN_OUT_S, "too many bad messages")
        return
    story.finalise()
    await goodbye(story)


async def vandal(story: Story) -> None:
    """Speaks, then sends bytes that are no WebSocket, or a message that is too big."""
    story.start()
    story.audio(0.3)
    if story.rng.random() < 0.5:
        story.too_big = True
        story.peer.client.frame(b"\0" * (story.peer.world.settings.max_message_bytes + 2))
    else:
        story.rubbish = True
        story.peer.wire(story.rng.randbytes(story.rng.randint(14, 400)))
    await story.wait_closed(THROWN_OUT_S, "it sent no WebSocket")


async def stranger(story: Story) -> None:
    """Has no key, or a wrong one; is told so."""
    await story.wait_closed(HANDSHAKE_S + SLACK_S, "it has no key")


async def cancels_at_once(story: Story) -> None:
    """Speaks until the storm's moment; cancels then, together with everybody else (P12)."""
    said = story.start()
    story.audio(0.5)
    with trio.move_on_after(30):
        while not story.go.is_set():
            story.audio(0.1)
            with trio.move_on_after(0.1):
                await story.go.wait()
    story.cancel(said)
    # The word arrives behind the audio that a slow network has not taken yet.
    answer_s = story.peer.unsent_s + 4 * story.toxics.delay_s
    with trio.move_on_after(SLACK_S + answer_s) as patience:
        await story.peer.client.hear(Cancelled, said.name)
    if patience.cancelled_caught and not story.toxics.loses and not story.terminal(said):
        story.peer.world.complain(f"P12 {said.name} is not cancelled in time")
    story.start()
    story.audio(0.3)
    story.finalise()
    await goodbye(story)
