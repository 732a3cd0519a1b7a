"""A trio client for voxtral-actors: live speech in, text out.

    import trio
    from voxtral_actors.client import connect

    async def main():
        async with connect("ws://127.0.0.1:8000/ws", api_key="…") as session:
            async with session.utterance() as utterance:
                await utterance.send(pcm16_16khz_mono)
                await utterance.finish()
                print(await utterance.text())

    trio.run(main)

It needs trio-websocket (`pip install 'voxtral-actors[client]'`); reading audio files and the
command line (`client.audio`, `client.cli`) need the rest of that extra.
"""

from voxtral_actors.client.codec import BadEventError, Unknown, decode_event, encode_command
from voxtral_actors.client.connecting import connect
from voxtral_actors.client.errors import (
    ClientError,
    ConnectFailed,
    ConnectionRefused,
    NoAnswer,
    RequestRefused,
    ServerClosed,
    UtteranceCancelled,
    UtteranceEnded,
    UtteranceFailed,
)
from voxtral_actors.client.heard import Revised
from voxtral_actors.client.reconnecting import Reconnect
from voxtral_actors.client.session import Session, Statistics
from voxtral_actors.client.sources import Source, feed
from voxtral_actors.client.utterance import Utterance, UtteranceEvent

__all__ = [
    "BadEventError",
    "ClientError",
    "ConnectFailed",
    "ConnectionRefused",
    "NoAnswer",
    "Reconnect",
    "RequestRefused",
    "Revised",
    "ServerClosed",
    "Session",
    "Source",
    "Statistics",
    "Unknown",
    "Utterance",
    "UtteranceCancelled",
    "UtteranceEnded",
    "UtteranceEvent",
    "UtteranceFailed",
    "connect",
    "decode_event",
    "encode_command",
    "feed",
]
