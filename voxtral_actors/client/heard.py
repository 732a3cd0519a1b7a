"""What an utterance has heard: events of its connections in, events for the caller out.

Text that nobody has taken yet is merged into one event, so the reader of the connection never waits
here, and what waits is bounded by the text itself. Positions and usage count from the start of
the utterance, although each connection counts from where it was started.
"""

from __future__ import annotations

from typing import Final

import attrs

from voxtral_actors.client import limits
from voxtral_actors.client.transcript import News, Transcript
from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE
from voxtral_actors.protocol.events import Delta, Done, Usage

BYTES_PER_S: Final = SAMPLE_RATE * BYTES_PER_SAMPLE


@attrs.frozen
class Revised:
    """The server heard it differently after a reconnect: `text` replaces all text before it."""

    session_id: str
    request_id: str
    text: str
    audio_ms: int


class Heard:
    """Text and usage of one utterance; `floor` is the byte at which the server's count began."""

    def __init__(self, session_id: str, request_id: str) -> None:
        self.audio_ms = 0
        self.floor = 0
        self._ids = session_id, request_id
        self._transcript = Transcript()
        self._used = Usage(0, 0, 0, 0.0)  # by parts that the server finalised by itself
        self._news: list[str] = []
        self._revised = False

    @property
    def waiting(self) -> bool:
        """Whether there is text to take."""
        return bool(self._news)

    @property
    def finalised(self) -> bool:
        """Whether the server has finalised a part by itself."""
        return self._used.audio_seconds > 0

    def covered(self, delay_ms: int) -> int:
        """The bytes of audio that certainly have their text, where text trails by `delay_ms`."""
        ms = self.audio_ms - delay_ms - int(1000 * limits.KEPT_LEAD_S)
        return max(0, ms) * SAMPLE_RATE // 1000 * BYTES_PER_SAMPLE

    def take(self) -> Delta | Revised:
        text = "".join(self._news)
        self._news.clear()
        made = Revised if self._revised else Delta
        self._revised = False
        return made(*self._ids, text, self.audio_ms)

    def delta(self, event: Delta) -> None:
        self.audio_ms = self.floor * 1000 // BYTES_PER_S + event.audio_ms
        self._tell(self._transcript.hear(event.delta))

    def done(self, event: Done) -> Done:
        """The last text; returns it as that of the whole utterance."""
        self._tell(self._transcript.end(event.text))
        if not self.floor:
            return event
        usage = self._with(event.usage)
        return attrs.evolve(event, text=self._transcript.text, usage=usage)

    def part(self, event: Done) -> None:
        """The last text of a part that the server finalised by itself."""
        self._tell(self._transcript.end(event.text))
        self._transcript.settle()
        self._used = self._with(event.usage)

    def so_far(self) -> Done:
        """The parts that were finalised, as the whole."""
        return Done(*self._ids, self._transcript.text, self._used)

    def lost(self, *, whole: bool) -> None:
        """The connection is lost; the next one hears the `whole` again, or goes on behind it."""
        if whole:
            self._transcript.restart()
        else:
            self._transcript.settle()

    def _with(self, more: Usage) -> Usage:
        used = self._used
        return Usage(
            used.prompt_tokens + more.prompt_tokens,
            used.completion_tokens + more.completion_tokens,
            used.total_tokens + more.total_tokens,
            self.floor / BYTES_PER_S + more.audio_seconds,
        )

    def _tell(self, news: News | None) -> None:
        if news is None or not (news.text or news.revised):
            return
        if news.revised:
            self._news.clear()
            self._revised = True
        self._news.append(news.text)
