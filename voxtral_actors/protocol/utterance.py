"""A living utterance: what is remembered of it, what it says, and the one event that it ends in."""

from __future__ import annotations

from typing import Final

import attrs

from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.protocol.events import Cancelled, Delta, Done, Error, Usage
from voxtral_actors.protocol.signals import Broke, Completed

_PIECES: Final = 1000
"""An hour has fifty thousand, which would weigh ten times what they say."""


@attrs.define
class Utterance:
    """`key` is never used twice in a connection; `samples` counts the audio that was accepted."""

    key: int
    session_id: str
    request_id: str
    samples: int = 0
    _text: list[str] = attrs.field(factory=list)

    def hear(self, text: str, consumed: int) -> Delta:
        """New text, after the engine has used `consumed` samples."""
        self._text.append(text)
        if len(self._text) > _PIECES:
            self._text[:] = ["".join(self._text)]
        audio_ms = min(consumed, self.samples) * 1000 // SAMPLE_RATE
        return Delta(self.session_id, self.request_id, text, audio_ms)

    def end(self, why: Completed | Broke | str) -> Done | Error | Cancelled:
        """The terminal event; a text is the reason of a cancel."""
        ids = self.session_id, self.request_id
        match why:
            case Completed(prompt_tokens=prompt, completion_tokens=completion):
                seconds = self.samples / SAMPLE_RATE
                usage = Usage(prompt, completion, prompt + completion, seconds)
                return Done(*ids, "".join(self._text), usage)
            case Broke():
                return Error(*ids, why.code, why.message, why.reason_code, why.details)
            case str():
                return Cancelled(*ids, why)
