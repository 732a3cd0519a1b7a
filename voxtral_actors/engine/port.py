"""What an engine is, seen from both sides.

Two ports meet here. A connection sees an `Engine`: it opens an `EngineStream` per utterance, feeds
audio into it and reads events from it. A recogniser implements a `Backend`: it runs for as long as
it is alive and serves many streams at once. The engine actor (`actor.py`) stands between the two;
it restarts a dead backend, counts slots, and drops what a dead stream still says.

Rules of the backend side:

1. Everything but `Backend.run` is synchronous, never blocks and is called in the trio thread.
2. `deliver` is called in the trio thread. A backend says `Finished` or `Failed` at most once per
   stream, `Released` exactly once, last, when nothing of the stream is left (task, process, GPU
   slot), and nothing after it. `Text` and `Progress` come before all of them.
3. After `finish()` a healthy backend says `Finished`; after `abort()` it may say anything that was
   on its way, and `Released` soon.
4. `Backend.run` returns or raises when the backend died. It need not say `Released` for its streams
   then: the actor ends them. Cancelling `run` stops the backend and leaves nothing behind.

Positions are counted in samples at `limits.SAMPLE_RATE` from the start of the stream, never in wall
time. Audio is PCM16 little endian, one channel, always a whole number of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias, runtime_checkable

import attrs
import trio

from voxtral_actors.limits import ROLL_SPARE_SHARE
from voxtral_actors.utterance.timing import Timing


class EngineError(Exception):
    """A stream could not be opened; `code` and `reason_code` are its wire form."""

    code = "engine_unavailable"
    reason_code = "engine_not_ready"


class EngineUnavailableError(EngineError):
    """The engine is starting, restarting or stopping: retry later."""


class EngineFullError(EngineError):
    """Every slot of the engine is taken: retry when an utterance has ended."""

    code = "server_at_capacity"
    reason_code = "no_engine_slot"


@attrs.frozen
class EngineInfo:
    """What the engine says of itself when it is ready; shown to clients in `session.created`."""

    name: str
    """Registered name: `vllm`, `sphinx`."""
    model: str
    """The served model's name, the only one that `session.update` accepts."""
    slots: int
    """How many streams may be heard at once; one more is refused, never queued. Streams that are
    over but not released yet do not count, up to as many again."""
    transcription_delay_ms: int
    """How far text trails the audio by design."""
    note: str = ""
    """One plain sentence that a user must know about this engine, or nothing."""
    timing: Timing = attrs.field(kw_only=True)
    """When its text comes: what decides how streams of it are joined to one utterance."""
    spare: int = attrs.field(default=0, kw_only=True)
    """Streams that it takes beyond `slots`, each beside another one of the same utterance which is
    about to end. Without any of them an utterance is one stream, until that is lost."""
    rolls: bool = attrs.field(default=False, kw_only=True)
    """Its streams wear out: an utterance goes over to a new one before they do. Others are rolled
    only where the operator asks for it, and then only in pauses."""


def spare_slots(slots: int) -> int:
    """How many spare streams go with so many slots."""
    return -(-slots // ROLL_SPARE_SHARE)


def with_spare(asked: int, streams: int) -> tuple[int, int]:
    """The slots and spare slots of an engine that has room for so many streams, one at the least.

    Of a single stream there is none to spare.
    """
    slots = max(1, min(asked, streams * ROLL_SPARE_SHARE // (ROLL_SPARE_SHARE + 1)))
    return slots, max(0, min(spare_slots(slots), streams - slots))


@attrs.frozen
class StreamSpec:
    """What a connection asks for when it opens a stream."""

    label: str
    """For logs only: session and request id. An engine never uses it as a key."""


@attrs.frozen
class Text:
    """Final text: it is never taken back. `consumed` samples of the stream have been used."""

    text: str
    consumed: int
    merged: tuple[tuple[str, int], ...] = attrs.field(default=(), eq=False, repr=False)
    """Of a text that waited with others in a stream, all of them, each with its own position."""

    @property
    def pieces(self) -> tuple[tuple[str, int], ...]:
        return self.merged or ((self.text, self.consumed),)


@attrs.frozen
class Progress:
    """The engine has used `consumed` samples of the stream and there is nothing to say."""

    consumed: int


@attrs.frozen
class Finished:
    """The whole stream has been transcribed. Token counts are 0 where it has none."""

    consumed: int
    prompt_tokens: int = 0
    completion_tokens: int = 0


@attrs.frozen
class Failed:
    """The stream ended early. `reason_code` is a slug such as `engine_lost`.

    `retryable` says that the same audio may well succeed in a new stream.
    """

    reason_code: str
    message: str
    retryable: bool = True


@attrs.frozen
class Released:
    """Nothing of the stream is left in the backend. Only the engine actor sees it."""


EngineEvent: TypeAlias = Text | Progress | Finished | Failed
BackendEvent: TypeAlias = EngineEvent | Released
Deliver: TypeAlias = Callable[[BackendEvent], None]


class EngineStream(Protocol):
    """One utterance at the engine, held by one connection."""

    def feed(self, pcm: bytes) -> None:
        """Hand over audio; it is queued, never dropped. After the stream's end it is ignored."""

    def finish(self) -> None:
        """No more audio comes: transcribe what there is, then end."""

    def abort(self) -> None:
        """End the stream now. `receive` then raises `trio.EndOfChannel`. Safe to call twice."""

    async def receive(self) -> EngineEvent:
        """The next event, texts that nobody fetched in time merged into one.

        The last event is `Finished` or `Failed`, unless the stream was aborted.

        Raises:
            trio.EndOfChannel: the stream is over, by its last event or by `abort`.
        """


class Engine(Protocol):
    """The engine as a connection sees it."""

    @property
    def info(self) -> EngineInfo | None:
        """Who serves, or None while no engine is ready."""

    def open(self, spec: StreamSpec, beside: EngineStream | None = None) -> EngineStream:
        """Take a slot and start a stream.

        A stream that opens `beside` another one, of the same utterance and soon over, takes a spare
        slot until one of the two is over: it keeps nobody else out.

        Raises:
            EngineUnavailableError: no engine is ready.
            EngineFullError: no slot is free, or no spare one.
        """

    async def wait_ready(self) -> EngineInfo:
        """Wait for an engine that is ready, and return what it says of itself."""


class BackendStream(Protocol):
    """One stream inside a backend; see the rules at the top."""

    def feed(self, pcm: bytes) -> None: ...

    def finish(self) -> None: ...

    def abort(self) -> None: ...


class Backend(Protocol):
    """A recogniser, one life of it: it is run once, and a restart makes a new one."""

    async def run(self, *, task_status: trio.TaskStatus[EngineInfo]) -> None:
        """Start, report `EngineInfo` through `task_status.started`, and serve until death.

        Raises:
            Exception: the backend could not start, or died; the message says why.
        """

    def open(self, spec: StreamSpec, deliver: Deliver) -> BackendStream:
        """Start a stream; called only between `started` and the end of `run`."""


@runtime_checkable
class Mortal(Protocol):
    """A backend that may know of its death before `run` has cleaned up after it."""

    dead: trio.Event
    """Set at once: from then on nothing is opened, and its streams are over."""


@runtime_checkable
class Inspected(Protocol):
    """A backend that shows how it is inside, for `/debug/actors`."""

    def statistics(self) -> attrs.AttrsInstance:
        """A moment of it; never text, audio or a key."""


@runtime_checkable
class Measured(Protocol):
    """A backend that has figures of its own for `/metrics`."""

    def figures(self) -> Mapping[str, float]:
        """Name -> value; the name of a count that only grows ends in `_total`."""
