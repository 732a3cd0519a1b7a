"""Live captions from the microphone, until Ctrl-C: python examples/captions.py

It needs `pip install 'voxtral-actors[mic]'`. The server and the key come from VOXTRAL_URL and
VOXTRAL_API_KEY. When the server is restarted, the captions go on where they were.
"""

import os
import sys
from typing import Any, TextIO

import trio

from voxtral_actors.client import Reconnect, Revised, connect, feed
from voxtral_actors.client.microphone import Microphone, MicrophoneError, load_sounddevice
from voxtral_actors.protocol.events import Cancelled, Delta, Error


def say(error: Exception, pause: float) -> None:
    print(f"[{error}; trying again in {pause:.1f} s]", file=sys.stderr)


async def captions(url: str, key: str, sounddevice: Any, out: TextIO) -> None:
    patient = Reconnect(give_up_after_s=3600, notify=say)
    async with (
        connect(url, api_key=key, reconnect=patient) as session,
        session.utterance() as utterance,
        trio.open_nursery() as nursery,
    ):
        # Blocks of 80 ms, which is how the model listens.
        with Microphone(sounddevice, device=None, block_ms=80) as microphone:
            nursery.start_soon(feed, utterance, microphone)  # noqa: ASYNC111 - cancelled below
            async for event in utterance:
                match event:
                    case Delta(delta=text):  # more text
                        out.write(text)
                    case Revised(text=text):  # all text so far was heard differently
                        out.write(f"\n{text}")
                    case Error(message=reason) | Cancelled(reason=reason):
                        out.write(f"\n[{reason}]")
                    case _:  # done: the text is the one that was shown
                        out.write("\n")
                out.flush()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    url = os.environ.get("VOXTRAL_URL", "ws://127.0.0.1:8000/ws")
    try:
        trio.run(captions, url, os.environ["VOXTRAL_API_KEY"], load_sounddevice(), sys.stdout)
    except* MicrophoneError as group:
        sys.exit(str(group.exceptions[0]))
    except* KeyboardInterrupt:
        print()
