"""What becomes of an utterance whose engine stream is lost: how often and how long it is tried
again, how much audio is kept for that, and the errors that it ends in when nothing helps.
"""

from __future__ import annotations

from typing import Final

import attrs

from voxtral_actors.connection.backlog import Backlog
from voxtral_actors.engine.port import EngineError, Failed
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE
from voxtral_actors.protocol.signals import Broke
from voxtral_actors.settings import Settings
from voxtral_actors.utterance.journal import ROUGH_AFTER, Gap
from voxtral_actors.utterance.segmenter import SPEECH_WINDOW
from voxtral_actors.utterance.timing import Timing

REOPEN_FIRST_S: Final = 0.2
REOPEN_MAX_S: Final = 2.0
"""Pauses before an engine that is ready and has no room is asked again, doubled from the first to
the largest: a slot is free when somebody has finished speaking, which is seconds."""

MAX_LOSSES_AT_A_PLACE: Final = 4
MAX_STALLS_AT_A_PLACE: Final = 2
"""There is audio that kills or stops an engine whenever it is heard, and everybody pays for the
restart. A stall has cost the whole patience besides."""

MAX_LOSSES_IN_VAIN: Final = 12
"""Wherever they are: an engine that never lives long enough to get any further is no engine."""

PLACE: Final = 5 * SAMPLE_RATE
"""Closer together is the same place: what is heard in one step of an engine, and what is about to
be heard. Further on is progress."""


class Losses:
    """The streams that one utterance has lost since it got any further."""

    def __init__(self) -> None:
        self._place = self._furthest = 0
        self._here = self._in_vain = 0

    def add(self, position: int, furthest: int, *, stalled: bool) -> bool:
        """One more. It was at `position`, the furthest one of all was at `furthest`; returns
        whether to try again."""
        if furthest >= self._furthest + PLACE:
            self._furthest, self._in_vain = furthest, 0
        if abs(position - self._place) >= PLACE:
            self._place, self._here = position, 0
        self._in_vain += 1
        self._here += 1
        most = MAX_STALLS_AT_A_PLACE if stalled else MAX_LOSSES_AT_A_PLACE
        return self._here < most and self._in_vain < MAX_LOSSES_IN_VAIN


def journal_cap(settings: Settings, timing: Timing) -> int:
    """How much audio of one utterance may be kept, in samples: all that a client can send while the
    engine is away, one message on top, and what the segmenter and the seams want kept."""
    waiting_s = settings.max_audio_backlog_s + settings.replay_budget_s
    message = settings.max_message_bytes // BYTES_PER_SAMPLE
    kept = SPEECH_WINDOW + ROUGH_AFTER + 2 * timing.lag
    return int(waiting_s * SAMPLE_RATE) + message + kept


def stalled(key: int, backlog: Backlog, patience: float) -> Broke:
    details: dict[str, object] = {"waiting_s": backlog.waiting_s, "timeout_s": patience}
    problem = f"the engine made no progress for {patience:g} s"
    if backlog.full:
        return Broke(key, "backlog_exceeded", "audio_backlog_full", problem, details)
    return Broke(key, "engine_unavailable", "engine_stalled", problem, details)


def refused(key: int, error: EngineError) -> Broke:
    return Broke(key, error.code, error.reason_code, str(error))


def failed(key: int, event: Failed) -> Broke:
    retry: dict[str, object] = {"retry": event.retryable}
    return Broke(key, "engine_unavailable", event.reason_code, event.message, retry)


def ended_early(key: int) -> Broke:
    problem = "the engine ended the stream before the audio was complete"
    return failed(key, Failed("engine_stream_lost", problem))


def too_often(broke: Broke, said_until: int) -> Broke:
    """The same audio was lost again and again; a stall says so itself."""
    if "retry" not in broke.details:
        return broke
    problem = f"{broke.message}, again and again at the same audio"
    details: dict[str, object] = {"retry": False, "transcribed_s": said_until / SAMPLE_RATE}
    return attrs.evolve(broke, reason_code="audio_unhearable", message=problem, details=details)


def too_long(broke: Broke, waited: float, said_until: int) -> Broke:
    """The budget is over. Who sends the audio from `transcribed_s` on again loses none."""
    details = {"waited_s": waited, "transcribed_s": said_until / SAMPLE_RATE}
    return attrs.evolve(broke, details={**broke.details, "retry": True, **details})


def forgotten(key: int, gap: Gap) -> Broke:
    begins, ends = gap.begins / SAMPLE_RATE, gap.ends / SAMPLE_RATE
    problem = f"audio from {begins:g} s to {ends:g} s was forgotten before it was transcribed"
    details: dict[str, object] = {"retry": True, "from_s": begins, "to_s": ends}
    return Broke(key, "backlog_exceeded", "audio_forgotten", problem, details)
