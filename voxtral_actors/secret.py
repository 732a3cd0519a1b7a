"""A text that must not be shown: it prints as a mask and is compared in constant time."""

from __future__ import annotations

import hashlib
import hmac


class Secret:
    """Holds a secret text and keeps it out of logs, tracebacks and error messages."""

    __slots__ = ("_digest", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._digest = self._hash(text)

    @staticmethod
    def _hash(text: str) -> bytes:
        # Digests have one length, so that a comparison tells nothing of the secret's.
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

    def reveal(self) -> str:
        """The text itself; call it only where it is handed to who needs it."""
        return self._text

    def matches(self, candidate: str) -> bool:
        """Whether `candidate` is the secret, in a time that tells nothing about it."""
        return hmac.compare_digest(self._digest, self._hash(candidate))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._digest, other._digest)

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return "********"
