"""What a chain of streams wants done: one frozen noun each, joined in the union `Action`.

`stream` is a number that the chain never uses twice.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from voxtral_actors.utterance.journal import Gap


@attrs.frozen
class Open:
    """Open a stream, and answer with `opened` or `refused`."""

    stream: int


@attrs.frozen
class Feed:
    """Hand audio to a stream."""

    stream: int
    pcm: bytes = attrs.field(repr=False)


@attrs.frozen
class Finish:
    """Tell a stream that its audio is complete."""

    stream: int


@attrs.frozen
class LetGo:
    """Abort a stream: nothing of it is wanted any more."""

    stream: int


@attrs.frozen
class Say:
    """Send new text; the engine has used `consumed` samples of the utterance."""

    text: str
    consumed: int


@attrs.frozen
class Complete:
    """All of the text was said. The tokens are those of the streams that were finished."""

    prompt_tokens: int
    completion_tokens: int


@attrs.frozen
class GiveUp:
    """This audio was forgotten before it had its text, and the stream that had it is lost."""

    gap: Gap


Action: TypeAlias = Open | Feed | Finish | LetGo | Say | Complete | GiveUp
