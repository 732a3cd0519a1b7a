"""`voxtral-actors listen`: the microphone as one utterance that lasts until Ctrl-C.

The first Ctrl-C stops the microphone and waits for the last words, the second one stops waiting.
"""

from __future__ import annotations

import trio

from voxtral_actors.client.errors import (
    ConnectFailed,
    ConnectionRefused,
    ServerClosed,
    UtteranceEnded,
)
from voxtral_actors.client.heard import Revised
from voxtral_actors.client.microphone import Microphone, MicrophoneError, load_sounddevice
from voxtral_actors.client.running import (
    CANNOT_CONNECT,
    FAILED,
    OK,
    USAGE,
    Interrupts,
    Server,
    explain,
    with_session,
)
from voxtral_actors.client.session import Session
from voxtral_actors.client.showing import Output, describe_failure, describe_session
from voxtral_actors.client.utterance import Utterance
from voxtral_actors.protocol.events import Cancelled, Delta, Error


async def listen_until_interrupted(
    server: Server, device: str | int | None, chunk_ms: int, out: Output, interrupts: Interrupts
) -> int:
    """Returns the exit status."""
    failure: str | None = None

    async def use(session: Session) -> None:
        nonlocal failure
        out.note(describe_session(session.created))
        try:
            microphone = Microphone(load_sounddevice(), device, chunk_ms)
            async with session.utterance() as utterance:
                with microphone:
                    out.note("listening; Ctrl-C to finish")
                    interrupts.soften = microphone.stop
                    failure = await _hear(microphone, utterance, out)
        except ServerClosed as error:
            failure = str(error)
        out.write("\n")
        if microphone.lost_s:
            out.complain(f"{microphone.lost_s:.1f} s of audio were lost: the network was too slow")

    try:
        load_sounddevice()
        await with_session(server, out.note, use)
    except MicrophoneError as error:
        out.complain(str(error))
        return USAGE
    except (ConnectFailed, ConnectionRefused) as error:
        out.complain(explain(error, server))
        return CANNOT_CONNECT
    if failure is not None:
        out.complain(failure)
        return FAILED
    return OK


async def _hear(microphone: Microphone, utterance: Utterance, out: Output) -> str | None:
    """Send and show until the last event; returns what went wrong."""
    failure: str | None = None

    async def feed() -> None:
        try:
            async for block in microphone:
                await utterance.send(block)
            await utterance.finish()
        except (UtteranceEnded, ServerClosed):
            pass  # told below

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        try:
            async for event in utterance:
                match event:
                    case Delta(delta=text):
                        out.write(text)
                    case Revised(text=text):
                        out.write(f"\n{text}")
                    case Error() | Cancelled():
                        failure = describe_failure(event)
                    case _:
                        if not utterance.finished:
                            failure = "the server ended the utterance"
        except ServerClosed as error:
            failure = str(error)
        nursery.cancel_scope.cancel()
    return failure
