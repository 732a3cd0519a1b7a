"""The text of one utterance over all its connections: what the caller was told, and what to add.

After a reconnect the server hears the utterance again from its start. As long as it says what it
said before, the caller is told nothing; where it goes on, the caller is told how; where it says
something else, the caller is told the whole text anew. What is settled is never taken back: the
text of a part that the server finalised by itself, and all text of a part whose audio is gone.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class News:
    """What the caller has to be told: text to add, or (`revised`) a text instead of all before."""

    text: str
    revised: bool = False


class Transcript:
    """Text in, as the server says it; news out."""

    def __init__(self) -> None:
        self._settled = ""
        self._text = ""  # after what is settled, as the caller knows it
        self._again: str | None = None  # what is said the second time, while it is nothing new

    @property
    def text(self) -> str:
        return self._settled + self._text

    def hear(self, delta: str) -> News | None:
        """The server said more."""
        if self._again is None:
            piece = self._spaced(delta) if not self._text else delta
            self._text += piece
            return News(piece)
        self._again += delta if self._again else self._spaced(delta)
        return None if self._text.startswith(self._again) else self._go_on(self._again)

    def end(self, text: str) -> News | None:
        """The server said all of it, as `text`."""
        if self._again is None:
            return None
        whole = self._spaced(text) if text else text
        if whole == self._text:
            self._again = None
            return None
        return self._go_on(whole)

    def restart(self) -> None:
        """The server hears it once more, from what is settled."""
        self._again = ""

    def settle(self) -> None:
        """What was said so far stands; the server goes on behind it."""
        self._settled, self._text = self.text, ""
        self._again = None

    def _go_on(self, text: str) -> News:
        old, self._text, self._again = self._text, text, None
        if text.startswith(old):
            return News(text[len(old) :])
        return News(self.text, revised=True)

    def _spaced(self, text: str) -> str:
        """The first words behind settled ones must not run into them."""
        apart = not self._settled or self._settled[-1].isspace() or text[:1].isspace()
        return text if apart else " " + text
