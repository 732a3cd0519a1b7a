"""A server that speaks vLLM's `/v1/realtime`, as far as the load generator does.

It answers each piece of audio of one step with a delta, once the audio of the first one is there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
import trio_websocket

FIRST_BYTES = 17_920
STEP_BYTES = 2560


async def _serve(request: trio_websocket.WebSocketRequest, *, fails: bool) -> None:
    socket = await request.accept()

    async def send(kind: str, **fields: object) -> None:
        await socket.send_message(json.dumps({"type": kind, **fields}))

    async def receive(kind: str) -> dict[str, str]:
        message: dict[str, str] = json.loads(await socket.get_message())
        assert message["type"] == kind, message
        return message

    try:
        await send("session.created")
        assert (await receive("session.update"))["model"] == "bench"
        await receive("input_audio_buffer.commit")
        heard, due = 0, FIRST_BYTES
        while True:
            message = json.loads(await socket.get_message())
            if message["type"] == "input_audio_buffer.commit":
                break
            heard += len(base64.b64decode(message["audio"]))
            while heard >= due:
                await send("transcription.delta", delta=" word")
                due += STEP_BYTES
        await (send("error", code="processing_error") if fails else send("transcription.done"))
        await socket.get_message()  # until the client hangs up
    except trio_websocket.ConnectionClosed:
        pass


@asynccontextmanager
async def realtime_server(*, fails: bool = False) -> AsyncIterator[str]:
    """The URL of a stub; with `fails` every utterance ends in an error."""
    async with trio.open_nursery() as nursery:
        handler = partial(_serve, fails=fails)
        server = await nursery.start(trio_websocket.serve_websocket, handler, "127.0.0.1", 0, None)
        yield f"ws://127.0.0.1:{server.port}/v1/realtime"
        nursery.cancel_scope.cancel()
