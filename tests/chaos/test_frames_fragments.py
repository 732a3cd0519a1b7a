"""RFC 6455 section 5.4: a message in fragments, what may stand between them and what may not."""

from __future__ import annotations

import pytest

from tests.chaos.frames import (
    CONTINUATION,
    LIMIT,
    Case,
    check,
    fragments,
    hear,
    ping_command,
    ping_text,
    pong,
    session,
)
from tests.engine.scripted import speech, transcript
from tests.server.wire_helpers import BINARY, PING, PONG, TEXT, frame
from voxtral_actors.protocol.events import Done
from voxtral_actors.server.websocket_stream import FRAGMENT_COST

COMMAND = ping_command()
HEAD, TAIL = fragments(TEXT, COMMAND[:20], COMMAND[20:])
OCTETS = [COMMAND[at : at + 1] for at in range(len(COMMAND))]
NOTHING = [b""] * 50
ECHO = ("pong echo",)


def joined(opcode: int, *parts: bytes, between: bytes = b"") -> bytes:
    return between.join(fragments(opcode, *parts))


WHOLE = {
    "two": Case(HEAD + TAIL, ECHO),
    "one an octet": Case(joined(TEXT, *OCTETS), ECHO),
    "first is empty": Case(joined(TEXT, b"", COMMAND), ECHO),
    "last is empty": Case(joined(TEXT, COMMAND, b""), ECHO),
    "many are empty": Case(joined(TEXT, *NOTHING, COMMAND, *NOTHING), ECHO),
    "all are empty": Case(joined(TEXT, *NOTHING), ("error invalid_json",)),
    "one after another": Case((HEAD + TAIL) * 5, ECHO * 5),
    "as large as may be": Case(
        joined(TEXT, ping_command(size=LIMIT - 2 * FRAGMENT_COST - 9), b" " * 4, b" " * 5), ECHO
    ),
    "ping between": Case(HEAD + frame(PING, b"now") + TAIL, (pong(b"now"), *ECHO)),
    "ten pings between": Case(
        HEAD + frame(PING, b"x") * 10 + TAIL, (*(pong(b"x") for _ in range(10)), *ECHO)
    ),
    "pong between": Case(HEAD + frame(PONG, b"x") + TAIL, ECHO),
    "pongs between all": Case(joined(TEXT, *OCTETS, between=frame(PONG)), ECHO),
}


@pytest.mark.parametrize("case", WHOLE.values(), ids=WHOLE.keys())
async def test_5_4_fragments_make_a_message(case: Case) -> None:
    """However small, and with control frames "injected in the middle" that are answered first."""
    await check(case)


async def test_5_4_a_ping_is_answered_before_the_message_ends() -> None:
    async with session() as client:
        await client.raw.send(HEAD + frame(PING, b"now"))
        assert await hear(client) == pong(b"now")
        await client.raw.send(TAIL)
        assert await hear(client) == ECHO[0]


@pytest.mark.parametrize("size", [1, 3, 125, 1999])
async def test_5_4_audio_in_fragments_is_heard_whole(size: int) -> None:
    """Also where a fragment ends in the middle of a sample."""
    pcm = speech(0.3, seed=size)[:8000]
    parts = [pcm[at : at + size] for at in range(0, len(pcm), size)]
    room = (LIMIT - len(pcm)) // FRAGMENT_COST
    async with session() as client:
        await client.start("u")
        for at in range(0, len(parts), room // 2 * 2):  # an even number of octets in a message
            await client.raw.send(joined(BINARY, *parts[at : at + room // 2 * 2]))
        await client.finish("u")
        assert (await client.hear_past_deltas(Done)).text == transcript(pcm)


BROKEN = {
    "continuation of nothing": Case(frame(CONTINUATION, b"x"), code=1002),
    "empty continuation of nothing": Case(frame(CONTINUATION), code=1002),
    "continuation of nothing, more to come": Case(frame(CONTINUATION, fin=False), code=1002),
    "continuation after a message": Case(HEAD + TAIL, ECHO, then=TAIL, code=1002),
    "text between": Case(HEAD + ping_text() + TAIL, code=1002),
    "start of a text between": Case(HEAD + HEAD, code=1002),
    "binary between": Case(HEAD + frame(BINARY, b"12") + TAIL, code=1002),
    "text within a binary": Case(frame(BINARY, b"12", fin=False) + ping_text(), code=1002),
    "text after a ping between": Case(
        HEAD + frame(PING, b"x"), (pong(b"x"),), then=ping_text(), code=1002
    ),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
async def test_5_4_a_message_inside_another_or_the_end_of_none_is_1002(case: Case) -> None:
    """ "The fragments of one message MUST NOT be interleaved"."""
    await check(case)


TOO_LARGE = {
    "two halves": joined(TEXT, b" " * (LIMIT // 2), b" " * (LIMIT // 2 + 1)),
    "never ending, of one octet": frame(BINARY, b"x", fin=False)
    + frame(CONTINUATION, b"x", fin=False) * (LIMIT // (FRAGMENT_COST + 1)),
    "never ending, of nothing": frame(TEXT, fin=False)
    + frame(CONTINUATION, fin=False) * (LIMIT // FRAGMENT_COST),
}


@pytest.mark.parametrize("sent", TOO_LARGE.values(), ids=TOO_LARGE.keys())
async def test_7_4_1_fragments_count_together_and_too_many_are_1009(sent: bytes) -> None:
    await check(Case(sent, code=1009))
