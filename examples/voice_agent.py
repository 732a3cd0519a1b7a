"""Turns of a voice agent, with barge-in: python examples/voice_agent.py FILE...

Each file stands for one turn of the user. `Agent.hear` is called when the user begins to speak: it
cuts off the answer that is still being given, and the turn before it if that is not over. The
server and the key come from VOXTRAL_URL and VOXTRAL_API_KEY.
"""

import os
import sys
from collections.abc import Awaitable, Callable

import trio

from voxtral_actors.client import Session, Source, UtteranceEnded, connect, feed
from voxtral_actors.client.audio import open_audio
from voxtral_actors.client.pacing import paced

Answer = Callable[[str], Awaitable[None]]


class Agent:
    def __init__(self, session: Session, nursery: trio.Nursery, answer: Answer) -> None:
        self._session = session
        self._nursery = nursery
        self._answer = answer
        self._turn = trio.CancelScope()

    def hear(self, source: Source) -> trio.CancelScope:
        """The user speaks. Whatever was going on is cut off here and now."""
        self._turn.cancel()
        self._turn = trio.CancelScope()
        self._nursery.start_soon(self._take_turn, source, self._turn)
        return self._turn

    async def _take_turn(self, source: Source, scope: trio.CancelScope) -> None:
        # Leaving the utterance early cancels it on the server: no text of it comes any more.
        with scope:
            async with self._session.utterance() as utterance:
                await feed(utterance, source)
                try:
                    text = await utterance.text()
                except UtteranceEnded:
                    return  # cut off by the next turn, or failed: there is nothing to answer
            await self._answer(text)  # the language model and the voice; cut off by `hear`


async def answer_aloud(text: str) -> None:
    print(f"user: {text}")
    await trio.sleep(2)  # a voice speaks here
    print("agent: (has finished speaking)")


async def converse(files: list[str], url: str, key: str, answer: Answer = answer_aloud) -> None:
    async with connect(url, api_key=key) as session, trio.open_nursery() as nursery:
        agent = Agent(session, nursery, answer)
        for path in files:
            with open_audio(path) as audio:
                turn = paced(audio)
                agent.hear(turn)
                await trio.sleep(audio.seconds + 1)  # then the next turn begins


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit("Which recordings? python examples/voice_agent.py FILE...")
    url = os.environ.get("VOXTRAL_URL", "ws://127.0.0.1:8000/ws")
    trio.run(converse, sys.argv[1:], url, os.environ["VOXTRAL_API_KEY"])
