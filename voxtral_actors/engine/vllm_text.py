"""Tokens to text, one at a time; pure.

A token is a few bytes, and a character may need the bytes of several tokens. So bytes are held back
until they make a character. Special tokens (nothing said, next word begins, …) are no bytes: they
say nothing, and they do not separate the bytes around them.

Bytes that can never make a character become U+FFFD. That too is held back until text follows, and
dropped at the end of the stream: it is what is left of a character that the end cut in two.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_new_decoder = codecs.getincrementaldecoder("utf-8")


class TokenText:
    """The text of one stream. `piece` gives the bytes of a token, none for a special one."""

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        self._piece = piece
        self._decoder = _new_decoder("replace")
        self._held = ""

    def feed(self, token: int) -> str:
        """The text that this token completes; often nothing."""
        piece = self._piece(token)
        if not piece:
            return ""
        text = self._held + self._decoder.decode(piece)
        sure = text.rstrip(REPLACEMENT)
        self._held = text[len(sure) :]
        return sure
