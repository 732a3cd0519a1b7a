"""The garbage collector of a process that serves: every session waits while it looks.

It follows all that was made since it last looked and is still there, and that is most of what a
session holds while it waits for audio: a dozen suspended coroutines, made anew with every message.
What it finds is what a session that ends leaves behind, some kilobytes, and can wait.
"""

from __future__ import annotations

import gc

from voxtral_actors import limits
from voxtral_actors.engine.actor import EngineActor


def look_seldom() -> None:
    """Have this process's collector look after many more new objects than Python's 700."""
    gc.set_threshold(limits.COLLECTOR_OBJECTS)


async def forget_the_start(engine: EngineActor) -> None:
    """Take what the first start has left out of the collector's sight.

    With vLLM and torch that is a million objects, which a full collection would walk through again
    and again.
    """
    await engine.wait_ready()
    gc.collect()
    gc.freeze()
