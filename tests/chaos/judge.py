"""What must be true of each client's account when its socket has ended.

`client` holds what one client heard against what it said. The judge of conversations inside `Peer`
has seen to the rest at each event: nothing after the Close (P2), nothing of an utterance after its
end (P12), joined deltas equal to the text.

The rule is that everything needs a cause: each Close, each error, each utterance that did not end
in its text. A cause is something that this client or this storm did. What has no cause is a
violation.
"""

from __future__ import annotations

import math
from functools import partial

import trio

from tests.chaos.story import Said, Story, is_terminal, samples
from tests.chaos.world import READINESS_S, World
from tests.connection.client import ABOUT_A_MESSAGE
from tests.engine.scripted import NEVER, transcript
from voxtral_actors.connection.losses import MAX_LOSSES_AT_A_PLACE
from voxtral_actors.limits import (
    DRAIN_SPREAD_S,
    DRAIN_SPREAD_SHARE,
    MAX_TAILS,
    SAMPLE_RATE,
    STOP_RESERVE_S,
)
from voxtral_actors.protocol.closing import Close
from voxtral_actors.protocol.events import (
    Cancelled,
    Delta,
    Done,
    Error,
    Event,
    SessionCreated,
    SessionEnd,
)

LATE_S = 0.6
"""On a slower network the server may give a client up before it has heard why."""
ROUNDING_S = 0.001
"""Of two differences between times: 8 s from 1.063 on are 7.9999999 s."""
PROTOCOL_ERRORS = {1002, 1003, 1007, 1009}
"""Close codes for bytes that are no WebSocket."""
WITH_SESSION_END = {Close.NORMAL, Close.IDLE, Close.MAX_DURATION}


def client(world: World, story: Story) -> None:
    """Complain of everything that one client heard without a cause, or did not hear."""
    complain = partial(world.require)
    close = _close(story)
    bad = [e.reason_code for e in story.peer.client.heard if isinstance(e, Error)]
    bad = [reason for reason in bad if reason in ABOUT_A_MESSAGE]
    complain(f"P9 {story.name}: {bad} for {story.bad}", holds=len(bad) <= story.bad)
    if story.peer.client.closed is None:
        complain(f"{story.name}: cut without a Close", holds=_may_be_cut(world, story))
    elif close is None:
        complain(
            f"P17 {story.name}: closed with {story.peer.client.closed}",
            holds=story.rubbish and story.peer.client.closed[0] in PROTOCOL_ERRORS,
        )
    else:
        complain(f"P17 {story.name}: {close.name} without a cause", holds=_due(world, story, close))
        _farewell(world, story, close)
        if close is Close.DRAINING:
            _farewell_in_time(world, story)
    if story.wrong_key and not story.toxics.loses and story.peer.client.closed:
        complain(f"{story.name} has no key and got {close}", holds=close is Close.BAD_KEY)
    for at, event in zip(story.peer.heard_at, story.peer.client.heard, strict=False):
        if event.request_id in story.said:
            _judge_event(world, story, story.said[event.request_id], event, at)
    for name in story.said:
        unlost = world.engine.replaced(name) and not world.engine.can_lose(name)
        complain(f"P15 {name}: another stream, and none was lost", holds=not unlost)
    _ends(world, story, close)


def _close(story: Story) -> Close | None:
    closed = story.peer.client.closed
    return next((c for c in Close if (c.spec.code, c.spec.slug) == closed), None)


def _may_be_cut(world: World, story: Story) -> bool:
    peer, toxics = story.peer, story.toxics
    return (
        peer.left
        or toxics.loses
        or toxics.delay_s > LATE_S
        or story.deaf
        or story.rubbish
        or story.too_big  # what it sent behind is unread when the server hangs up: a reset
        or (world.stopped_at <= peer.ended_at and not peer.client.heard)  # was not let in any more
    )


def _due(world: World, story: Story, close: Close) -> bool:
    """Whether something has happened that this Close is for."""
    settings, peer = world.settings, story.peer
    age = peer.ended_at - peer.opened_at
    match close:
        case Close.NORMAL:
            return story.said_end
        case Close.BAD_KEY:
            return story.wrong_key
        case Close.DRAINING:
            return world.stopped_at <= peer.ended_at
        case Close.AT_CAPACITY:
            return len(world.network.links) > settings.max_connections
        case Close.ENGINE_UNAVAILABLE:
            return world.engine.was_down(peer.opened_at)
        case Close.IDLE:
            quiet = peer.ended_at - peer.last_said_at
            # A server that stops closes who says nothing at its turn, and not for saying nothing.
            kept = (
                not story.said
                and peer.ended_at > _turn(world, story) + 1 + 2 * story.toxics.delay_s
            )
            return 0 < settings.idle_timeout_s <= quiet + ROUNDING_S and not kept
        case Close.MAX_DURATION:
            return 0 < settings.max_duration_s <= age + ROUNDING_S
        case Close.SLOW_CONSUMER:
            return story.deaf or story.toxics.delay_s > LATE_S
        case Close.TOO_BIG:
            return story.too_big or story.rubbish
        case Close.TOO_MANY_BAD:
            return 0 < settings.max_bad_messages <= story.bad
        case _:  # a strange Origin, or our bug
            return False


def _farewell(world: World, story: Story, close: Close) -> None:
    """P17: the event that says why comes right before the Close."""
    spec = close.spec
    last: Event | None = next(reversed(story.peer.client.heard), None)
    if spec.error is not None:
        said = isinstance(last, Error) and (last.code, last.reason_code) == (spec.error, spec.slug)
    elif close in WITH_SESSION_END:
        said = isinstance(last, SessionEnd) and last.reason == spec.slug
    else:  # a message too big is closed by the socket's guard, who says nothing more
        said = True
    world.require(f"P17 {story.name}: {close.name} came behind {last}", holds=said)


def _judge_event(world: World, story: Story, said: Said, event: Event, at: float) -> None:
    late = _turn(world, story) < said.started_at and isinstance(event, Delta | Done)
    world.require(f"P16 {said.name}: started after the stop", holds=not late)
    match event:
        case Delta():
            heard = event.audio_ms * SAMPLE_RATE // 1000
            world.require(
                f"{said.name}: {event.audio_ms} ms heard, {samples(said.pcm)} samples said",
                holds=heard <= samples(said.pcm),
            )
        case Done():
            _judge_text(world, story, said, event, at)
        case Cancelled() | Error() if is_terminal(event):
            world.require(
                f"P11 {said.name}: {event} without a cause",
                holds=_excused(world, story, said, event, at),
            )
        case _:
            pass


def _judge_text(world: World, story: Story, said: Said, done: Done, at: float) -> None:
    """The text is that of the audio that was taken; and all was taken, unless time was up."""
    taken = round(done.usage.audio_seconds * SAMPLE_RATE)
    whole = taken == samples(said.pcm) and said.finalised_at <= at
    expected = transcript(bytes(said.pcm[: 2 * taken]))
    # Who claims to have used audio that it was not heard in loses its words with its stream.
    parts = [p for p in world.scripted.streams if p.label.endswith(f"/{said.name}")]
    lied = len(parts) > 1 and any(part.label in world.engine.overran for part in parts)
    right = done.text == expected or lied
    world.require(f"{said.name}: {done.text!r} for {expected!r}", holds=right)
    world.require(
        f"P10 {said.name}: {taken} samples taken of {samples(said.pcm)}",
        holds=whole or _winding_down(world, story, at),
    )


def _winding_down(world: World, story: Story, at: float) -> bool:
    longest = world.settings.max_duration_s or math.inf
    return world.stopped_at <= at or at - story.peer.opened_at + ROUNDING_S >= longest


def _excused(world: World, story: Story, said: Said, event: Cancelled | Error, at: float) -> bool:
    """Whether an utterance may have ended in this instead of in its text."""
    parts = [p for p in world.scripted.streams if p.label.endswith(f"/{said.name}")]
    scripts = [part.script for part in parts] or [world.scripted.script]
    if isinstance(event, Cancelled):
        close = _close(story)
        match event.reason:
            case "superseded":
                return said.superseded_at <= at
            case "client_request":
                return said.cancelled_at <= at
            case Close.IDLE.spec.slug:  # what is finalised ends before, if in a stalled engine
                return said.finalised_at == math.inf
            case Close.MAX_DURATION.spec.slug | Close.DRAINING.spec.slug if close is not None:
                instant = all(not s.step_s and s.hang_after == NEVER for s in scripts)
                return not (instant and world.settings.close_grace_s) or story.deaf
            case slug:
                return close is None or close.spec.slug == slug
    # Who claimed to have used all of the audio cannot show any progress while it works on it.
    overran = any(part.label in world.engine.overran for part in parts)
    # Whoever lost the engine has waited for it, and said for how long.
    waited = event.details.get("waited_s", 0.0)
    in_vain = isinstance(waited, float) and waited >= world.settings.replay_budget_s
    match event.reason_code:
        case "engine_lost":
            lives = world.engine.lives
            return in_vain and any(
                said.started_at <= (life.ended_at or NEVER) <= at for life in lives
            )
        case "engine_not_ready":
            raised = any(script.open_raises for script in scripts)
            return in_vain and (raised or world.engine.was_down(said.started_at))
        case "engine_stalled" | "audio_backlog_full":
            stops = any(min(s.hang_after, s.die_after) < NEVER for s in scripts)
            return stops or overran
        case "scripted":
            return in_vain and any(script.fail_after < NEVER for script in scripts)
        case "audio_unhearable":
            ends = any(min(s.fail_after, s.die_after) < NEVER for s in scripts)
            return ends or len(world.engine.lives) >= MAX_LOSSES_AT_A_PLACE
        case "no_engine_slot":
            return world.scripted.script.slots < world.settings.max_connections * (MAX_TAILS + 1)
        case "draining":
            return _winding_down(world, story, at)
        case _:
            return False


def _ends(world: World, story: Story, close: Close | None) -> None:
    """P11: what was said before a Close has its end, unless this client did not stay to hear it."""
    peer = story.peer
    if peer.left or close is None or story.deaf or close is Close.SLOW_CONSUMER:
        return
    ended = [story.terminal(said) is not None for said in story.said.values()]
    # What was said behind the server's own end has no answer; everything before it has.
    right = all(ended) if close is Close.NORMAL else ended == sorted(ended, reverse=True)
    world.require(f"P11 {story.name}: {close.name}, and {ended}", holds=right)
    if close is not Close.TOO_BIG:
        # Whoever has had a stream was known to the server.
        told = all(story.terminal(s) for s in story.said.values() if world.engine.tries[s.name])
        world.require(f"P11 {story.name}: {close.name} without the end of a stream", holds=told)


def _turn(world: World, story: Story) -> float:
    """When a server that stops comes to this session; its name says where in the spread that is."""
    created = next((e for e in story.peer.client.heard if isinstance(e, SessionCreated)), None)
    if created is None:
        return world.stopped_at
    whole = world.settings.drain_timeout_s
    left = max(whole - STOP_RESERVE_S, whole / 2)
    share = int(created.id.removeprefix("sess-"), 16) / 2**128
    return world.stopped_at + share * min(DRAIN_SPREAD_S, DRAIN_SPREAD_SHARE * left)


def _farewell_in_time(world: World, story: Story) -> None:
    """P16: whoever has had all of its text is closed at its turn when the server stops."""
    turn = _turn(world, story)
    world.require(
        f"P16 {story.name}: closed before its turn", holds=turn <= story.peer.ended_at + ROUNDING_S
    )
    ends = [story.terminal(said) for said in story.said.values()]
    # One that was refused for the stop never was there to be waited for.
    last = [end[0] for end in ends if end and getattr(end[1], "reason_code", "") != "draining"]
    due = max(turn, story.peer.opened_at, *last) + 1 + 2 * story.toxics.delay_s
    world.require(
        f"P16 {story.name}: still open, and all is said",
        holds=story.peer.ended_at <= due or not all(ends) or story.deaf,
    )


def probe(world: World, path: str, answer: bytes, asked_at: float) -> None:
    """P15: liveness says yes, readiness follows the engine."""
    status = int(answer.split(b" ", 2)[1])
    if path != "/readyz":
        world.require(f"{path}: {status}", holds=status == 200)
        return
    world.require(f"P15 /readyz: {status}", holds=status in {200, 503})
    down = world.engine.down_since()
    if status == 200:
        dead = down is not None and asked_at - down > READINESS_S
        stopping = world.stopped_at < asked_at
        world.require("P15 /readyz: 200 without an engine", holds=not dead and not stopping)
    else:
        away = world.engine.was_down(asked_at) or world.stopped_at <= trio.current_time()
        world.require("P15 /readyz: 503 with an engine", holds=away)
