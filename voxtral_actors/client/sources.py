"""Sources: where the audio of an utterance comes from.

A source is anything that gives PCM16 little endian, 16 kHz, one channel, in pieces of any length:
an `audio.AudioFile` as fast as the server takes it, `pacing.paced` over one at live pace, a
`microphone.Microphone`, or an iterator of your own, asynchronous or not.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TypeAlias

from voxtral_actors.client.errors import UtteranceEnded
from voxtral_actors.client.utterance import Utterance

Source: TypeAlias = AsyncIterable[bytes] | Iterable[bytes]


async def feed(utterance: Utterance, source: Source) -> None:
    """Send all that a source gives, then say that no more comes.

    Returns early when the utterance takes no more; its last event says why.

    Raises:
        ServerClosed, ConnectFailed, ConnectionRefused: the session is lost.
        What the source raises.
    """
    try:
        if isinstance(source, AsyncIterable):
            async for chunk in source:
                await utterance.send(chunk)
        else:
            for chunk in source:
                await utterance.send(chunk)
        await utterance.finish()
    except UtteranceEnded:
        pass
