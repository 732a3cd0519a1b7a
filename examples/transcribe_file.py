"""A recording becomes text: python examples/transcribe_file.py FILE

The server and the key come from VOXTRAL_URL and VOXTRAL_API_KEY.
"""

import os
import sys

import trio

from voxtral_actors.client import connect, feed
from voxtral_actors.client.audio import open_audio


async def transcribe(path: str, url: str, key: str) -> str:
    async with connect(url, api_key=key) as session, session.utterance() as utterance:
        with open_audio(path) as audio:  # any format, any rate; made into PCM16 at 16 kHz
            await feed(utterance, audio)  # as fast as the server takes it
        return await utterance.text()  # all of it, final


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Which recording? python examples/transcribe_file.py FILE")
    url = os.environ.get("VOXTRAL_URL", "ws://127.0.0.1:8000/ws")
    print(trio.run(transcribe, sys.argv[1], url, os.environ["VOXTRAL_API_KEY"]))
