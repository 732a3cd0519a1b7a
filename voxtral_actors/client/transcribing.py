"""`voxtral-actors transcribe`: files through one session, one utterance each.

A file that fails does not stop the others. When the connection is lost, its file has failed and
the rest goes over a new one.
"""

from __future__ import annotations

from collections import deque

import attrs
import trio

from voxtral_actors.client.audio import AudioError, AudioFile, open_audio
from voxtral_actors.client.errors import (
    ConnectFailed,
    ConnectionRefused,
    ServerClosed,
    UtteranceEnded,
)
from voxtral_actors.client.heard import Revised
from voxtral_actors.client.pacing import paced
from voxtral_actors.client.running import (
    CANNOT_CONNECT,
    FAILED,
    OK,
    Server,
    explain,
    with_session,
)
from voxtral_actors.client.session import Session
from voxtral_actors.client.showing import Transcript, View, describe_failure, describe_session
from voxtral_actors.client.utterance import Utterance
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE
from voxtral_actors.protocol.events import Cancelled, Delta, Done, Error


@attrs.frozen
class How:
    """How audio is sent."""

    live: bool = True
    chunk_ms: int = 80


async def transcribe_files(paths: list[str], server: Server, how: How, view: View) -> int:
    """Transcribe the files in order; returns the exit status."""
    failed = 0
    pending: deque[str] = deque()
    for path in paths:  # a wrong name should not have to wait for its turn, or for a server
        try:
            open_audio(path).__exit__(None, None, None)
            pending.append(path)
        except AudioError as error:
            view.end(Transcript(path, error=_short(path, error)))
            failed += 1

    async def use(session: Session) -> None:
        nonlocal failed
        view.note(describe_session(session.created))
        while pending and not session.over:
            transcript = await transcribe_file(session, pending.popleft(), how, view)
            view.end(transcript)
            failed += transcript.error is not None

    while pending:
        try:
            await with_session(server, view.note, use)
        except (ConnectFailed, ConnectionRefused) as error:
            view.unreachable(list(pending), explain(error, server))
            return CANNOT_CONNECT
    return FAILED if failed else OK


async def transcribe_file(session: Session, path: str, how: How, view: View) -> Transcript:
    """One file as one utterance. What goes wrong is in the transcript and never raised."""
    try:
        file = open_audio(path, how.chunk_ms)
    except AudioError as error:
        return Transcript(path, error=_short(path, error))
    with file:
        view.begin(path, file.seconds)
        job = _Job(path, file, how, view)
        try:
            async with session.utterance() as utterance:
                return await job.run(utterance)
        except ServerClosed as error:
            return job.transcript(error=str(error))


@attrs.define(eq=False)
class _Job:
    path: str
    file: AudioFile
    how: How
    view: View
    sent_s: float = 0.0
    begun_at: float | None = None
    first_at: float | None = None
    finished_at: float | None = None
    ended_at: float | None = None
    failure: str | None = None
    done: Done | None = None
    text: list[str] = attrs.field(factory=list)

    async def run(self, utterance: Utterance) -> Transcript:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed, utterance, nursery.cancel_scope)
            await self._follow(utterance)
            nursery.cancel_scope.cancel()
        return self.transcript(self.failure)

    async def _feed(self, utterance: Utterance, scope: trio.CancelScope) -> None:
        """Send the file. How the utterance ends is for `_follow` to tell."""
        try:
            if self.how.live:
                async for chunk in paced(self.file):
                    await self._send(utterance, chunk)
            else:
                for chunk in self.file:
                    await self._send(utterance, chunk)
            await utterance.finish()
            self.finished_at = trio.current_time()
        except AudioError as error:
            self.failure = _short(self.path, error)
            scope.cancel()  # leaving the utterance cancels it on the server
        except (UtteranceEnded, ServerClosed):
            pass

    async def _send(self, utterance: Utterance, chunk: bytes) -> None:
        if self.begun_at is None:
            self.begun_at = trio.current_time()
        await utterance.send(chunk)
        self.sent_s += len(chunk) / BYTES_PER_SAMPLE / SAMPLE_RATE
        self.view.sent(self.sent_s)

    async def _follow(self, utterance: Utterance) -> None:
        try:
            async for event in utterance:
                match event:
                    case Delta(delta=text):
                        if self.first_at is None:
                            self.first_at = trio.current_time()
                        self.text.append(text)
                        self.view.delta(text)
                    case Revised(text=text):
                        self.text = [text]
                        self.view.delta(f"\n{text}")  # what a pipe has read is not taken back
                    case Done():
                        self.done = event
                        self.ended_at = trio.current_time()
                        if self.finished_at is None and not utterance.finished:
                            self.failure = f"the server took only {self.sent_s:.1f} s of it"
                    case Error() | Cancelled():
                        self.failure = describe_failure(event)
        except ServerClosed as error:
            self.failure = str(error)

    def transcript(self, error: str | None = None) -> Transcript:
        return Transcript(
            self.path,
            self.done.text if self.done else "".join(self.text),
            round(self.done.usage.audio_seconds if self.done else self.sent_s, 3),
            _between(self.begun_at, self.first_at),
            _between(self.finished_at, self.ended_at),
            self.done.usage if self.done else None,
            error,
        )


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round(max(0.0, end - start), 3)


def _short(path: str, error: AudioError) -> str:
    """The reason alone, where the file is named beside it."""
    return str(error).removeprefix(f"{path}: ")
