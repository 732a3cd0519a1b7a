"""vLLM's own realtime server without its socket, on the engine that is there already.

`RealtimeConnection` is the code that serves `/v1/realtime`. It gets the client's messages as a
client would send them, and what it sends is collected. So a comparison with it covers the audio's
conversion, the frames, the renderer, the tokens and the text.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import attrs


@attrs.define
class Transcript:
    tokens: list[int] = attrs.field(factory=list)
    text: str = ""
    deltas: int = 0


async def transcribe(llm: Any, pcm: bytes, chunk_bytes: int) -> Transcript:
    """What vLLM's server makes of one utterance."""
    from vllm.entrypoints.speech_to_text.realtime.connection import RealtimeConnection
    from vllm.entrypoints.speech_to_text.realtime.serving import OpenAIServingRealtime
    from vllm.model_executor.models.voxtral_realtime import VoxtralRealtimeGeneration

    heard = Transcript()
    done = asyncio.Event()

    async def generate(**options: Any) -> AsyncGenerator[Any, None]:
        async for output in llm.generate(**options):
            heard.tokens += output.outputs[0].token_ids
            yield output

    async def send_text(message: str) -> None:
        event = json.loads(message)
        match event["type"]:
            case "transcription.delta":
                heard.deltas += 1
            case "transcription.done":
                heard.text = event["text"]
                done.set()
            case other:
                raise AssertionError(f"{other}: {event}")

    serving = SimpleNamespace(
        model_config=llm.model_config,
        renderer=llm.renderer,
        model_cls=VoxtralRealtimeGeneration,
        engine_client=SimpleNamespace(generate=generate, abort=llm.abort),
        _is_model_supported=lambda _: True,
    )
    serving.transcribe_realtime = lambda *audio: OpenAIServingRealtime.transcribe_realtime(
        serving, *audio
    )
    connection = RealtimeConnection(SimpleNamespace(send_text=send_text), serving)
    connection._is_connected = True
    say = connection.handle_event
    await say({"type": "session.update", "model": "any"})
    await say({"type": "input_audio_buffer.commit"})
    for start in range(0, len(pcm), chunk_bytes):
        audio = b64encode(pcm[start : start + chunk_bytes]).decode()
        await say({"type": "input_audio_buffer.append", "audio": audio})
    await say({"type": "input_audio_buffer.commit", "final": True})
    await done.wait()
    await connection.cleanup()
    return heard
