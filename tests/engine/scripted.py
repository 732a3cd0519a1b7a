"""The scripted engine: it does what a `Script` says, on trio and on asyncio.

`Scripted` is the engine over all its lives: it makes the backends and keeps the records.

    scripted = Scripted(Script(slots=2), streams=[Script(hang_after=16_000)])
    actor = EngineActor(scripted.backend)  # or scripted.hosted: the same engine in the loop thread
    scripted.streams[0].aborted

All that a test needs comes from here, `script.py` included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import trio

from tests.engine.script import (
    FRAME,
    FRAME_BYTES,
    HEALTHY,
    NEVER,
    Part,
    Script,
    ScriptedError,
    random_script,
    speech,
    transcript,
)
from voxtral_actors.engine.hosted import AudioSource, HostedBackend
from voxtral_actors.engine.port import (
    Deliver,
    EngineEvent,
    EngineInfo,
    Released,
    StreamSpec,
)

__all__ = [
    "FRAME",
    "FRAME_BYTES",
    "HEALTHY",
    "NEVER",
    "Part",
    "Script",
    "Scripted",
    "ScriptedAsyncioEngine",
    "ScriptedBackend",
    "ScriptedError",
    "random_script",
    "speech",
    "transcript",
]


class Scripted:
    """The engine over all its lives. `streams` chooses the script of the n-th stream, by a function
    or by a list; after its end, and without it, each stream follows `script`. `part` makes what
    hears the streams."""

    def __init__(
        self,
        script: Script = HEALTHY,
        streams: Sequence[Script] | Callable[[int], Script] = (),
        part: Callable[[Script, str], Part] = Part,
    ) -> None:
        self.script = script
        self._part = part
        self.starts = 0
        """Lives begun, those that never got ready included."""
        self.streams: list[Part] = []
        self._kill: Callable[[], object] | None = None
        self._choose = streams

    def backend(self) -> ScriptedBackend:
        return ScriptedBackend(self)

    def hosted(self) -> HostedBackend:
        return HostedBackend(ScriptedAsyncioEngine(self))

    @property
    def aborted(self) -> int:
        return sum(part.aborted for part in self.streams)

    @property
    def released(self) -> int:
        return sum(part.released for part in self.streams)

    def kill(self) -> None:
        """End the life that is ready now; call it in the trio thread."""
        assert self._kill is not None, "no life is ready"
        self._kill()

    # --- The backends' side ------------------------------------------------------------------

    def start(self, kill: Callable[[], object]) -> EngineInfo:
        self.starts += 1
        if self.starts <= self.script.fail_start:
            raise ScriptedError(f"start {self.starts} fails")
        self._kill = kill
        return self.script.info

    def end(self) -> None:
        self._kill = None

    def cast(self, spec: StreamSpec) -> Part:
        number = len(self.streams)
        if callable(self._choose):
            script = self._choose(number)
        else:
            script = self._choose[number] if number < len(self._choose) else self.script
        self.streams.append(self._part(script, spec.label))
        if script.open_raises:
            raise ScriptedError("this stream cannot be opened")
        return self.streams[-1]


class ScriptedStream:
    """One stream in the trio backend (`port.BackendStream`)."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._scope = trio.CancelScope()
        self._news = trio.Event()

    def feed(self, pcm: bytes) -> None:
        self._part.feed(pcm)
        self._news.set()

    def finish(self) -> None:
        self._part.finished = True
        self._news.set()

    def abort(self) -> None:
        self._part.aborted = True
        if not self._part.script.never_release:
            self._scope.cancel(reason="aborted")

    async def serve(self, deliver: Deliver) -> None:
        part = self._part
        with self._scope:
            while not part.over:
                while not part.ready:
                    self._news = trio.Event()
                    await self._news.wait()
                await trio.sleep(part.script.step_s)
                for event in part.step():
                    deliver(event)
        if part.script.never_release:
            await trio.sleep_forever()
        for event in part.ghosts() if part.script.late and part.aborted else ():
            deliver(event)
        await trio.sleep(part.script.release_after_s)
        part.released = True
        deliver(Released())
        if part.script.garbage:
            for event in part.ghosts():
                deliver(event)
            deliver(Released())


class ScriptedBackend:
    """One life on trio (`port.Backend`)."""

    def __init__(self, scripted: Scripted) -> None:
        self._scripted = scripted
        self._nursery: trio.Nursery

    async def run(self, *, task_status: trio.TaskStatus[EngineInfo]) -> None:
        script = self._scripted.script
        await trio.sleep(script.start_s)
        killed = trio.Event()
        info = self._scripted.start(killed.set)
        async with trio.open_nursery() as self._nursery:
            task_status.started(info)
            with trio.move_on_after(script.die_at_s):
                await killed.wait()
            self._scripted.end()
            raise ScriptedError("the engine dies")

    def open(self, spec: StreamSpec, deliver: Deliver) -> ScriptedStream:
        stream = ScriptedStream(self._scripted.cast(spec))
        self._nursery.start_soon(stream.serve, deliver)
        return stream


class ScriptedAsyncioEngine:
    """One life on asyncio (`hosted.AsyncioEngine`). `open_raises` fails the stream, for `open` has
    returned when this engine hears of it; `never_release` gives in when the engine stops."""

    def __init__(self, scripted: Scripted) -> None:
        self._scripted = scripted
        self._killed = asyncio.Event()

    async def start(self) -> EngineInfo:
        await asyncio.sleep(self._scripted.script.start_s)
        loop = asyncio.get_running_loop()
        return self._scripted.start(lambda: loop.call_soon_threadsafe(self._killed.set))

    async def wait_dead(self) -> None:
        die_at_s = self._scripted.script.die_at_s
        with suppress(TimeoutError):
            await asyncio.wait_for(self._killed.wait(), None if die_at_s == NEVER else die_at_s)
        raise ScriptedError("the engine dies")

    async def transcribe(
        self, spec: StreamSpec, audio: AudioSource, emit: Callable[[EngineEvent], None]
    ) -> None:
        part = self._scripted.cast(spec)
        try:
            await self._play(part, audio, emit)
        except asyncio.CancelledError:
            part.aborted = True
            if part.script.never_release:
                await self._play(part, audio, emit)  # noqa: ASYNC102
            for event in part.ghosts() if part.script.late else ():
                emit(event)
            await self._let_go(part)  # noqa: ASYNC102
            raise
        await self._let_go(part)

    async def stop(self) -> None:
        self._scripted.end()

    async def _play(
        self, part: Part, audio: AudioSource, emit: Callable[[EngineEvent], None]
    ) -> None:
        while not part.over:
            while not part.ready:
                if part.finished:
                    await asyncio.Event().wait()
                chunk = await audio.get()
                part.finished = chunk is None
                part.feed(chunk or b"")
            await asyncio.sleep(part.script.step_s)
            try:
                events = part.step()
            except ScriptedError:
                self._killed.set()
                await asyncio.Event().wait()
            for event in events:
                emit(event)

    async def _let_go(self, part: Part) -> None:
        if part.script.never_release:
            await asyncio.Event().wait()
        await asyncio.sleep(part.script.release_after_s)
        part.released = True
