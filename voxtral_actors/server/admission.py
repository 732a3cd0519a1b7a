"""Admission: who may open a session, decided before it opens.

The order of the checks is part of the contract. Who has no key learns nothing else of the server;
who has one learns first what will not change (its Origin), then what will (drain, engine, room).

It owns the count of connections. A token is taken together with the decision, without anything
awaited in between, so that two clients cannot take the last one; it is given back when the `with`
block of `Admission.admit` is left, however that comes about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import attrs
import trio

from voxtral_actors.connection.drain import Drain
from voxtral_actors.engine.port import Engine, EngineInfo
from voxtral_actors.protocol.closing import Close
from voxtral_actors.settings import Settings

SUBPROTOCOL = "voxtral.v1"
KEY_SUBPROTOCOL_PREFIX = "voxtral-api-key."


@attrs.frozen
class Credentials:
    """What a handshake says of its sender."""

    keys: tuple[str, ...]
    """Every key that was offered, in whichever place."""
    origin: str | None
    """The `Origin` header: browsers send it, other clients do not."""
    host: str
    """The `Host` header: an Origin with the same authority is the server's own page."""


class Fields(Protocol):
    """Header or query fields, looked up by name (headers: without regard to case)."""

    def get(self, key: str, /) -> str | None: ...


def read_credentials(headers: Fields, query: Fields, subprotocols: Sequence[str]) -> Credentials:
    """Collect keys from the query, the headers and the subprotocols of a handshake."""
    keys = [query.get("api_key"), headers.get("X-API-Key")]
    scheme, _, token = (headers.get("Authorization") or "").partition(" ")
    if scheme.lower() == "bearer":
        keys.append(token.strip())
    keys += [
        item.removeprefix(KEY_SUBPROTOCOL_PREFIX)
        for item in subprotocols
        if item.startswith(KEY_SUBPROTOCOL_PREFIX)
    ]
    offered = tuple(key for key in keys if key)
    return Credentials(offered, headers.get("Origin"), headers.get("Host") or "")


class Admission:
    """The gate of one server."""

    def __init__(self, settings: Settings, engine: Engine, drain: Drain) -> None:
        self._settings = settings
        self._engine = engine
        self._origins = frozenset(origin.lower() for origin in settings.allowed_origins)
        self._drain = drain
        self.open = 0
        self.admitted = 0
        self.refused: Counter[str] = Counter()
        self._empty = trio.lowlevel.ParkingLot()

    @contextmanager
    def admit(self, credentials: Credentials) -> Iterator[EngineInfo | Close]:
        """Decide, and hold a connection token while the block runs if the answer is yes.

        Yields what the engine says of itself, or the Close that the client gets.
        """
        verdict = self._decide(credentials)
        if isinstance(verdict, Close):
            self.refused[verdict.spec.slug] += 1
            yield verdict
            return
        self.open += 1
        self.admitted += 1
        try:
            yield verdict
        finally:
            self.open -= 1
            if not self.open:
                self._empty.unpark_all()

    async def nobody(self) -> None:
        """Wait until no admitted connection is open."""
        while self.open:
            await self._empty.park()

    def _decide(self, credentials: Credentials) -> EngineInfo | Close:
        if not self.knows(credentials):
            return Close.BAD_KEY
        if not self._allows(credentials.origin, credentials.host):
            return Close.BAD_ORIGIN
        if self._drain.started:
            return Close.DRAINING
        info = self._engine.info
        if info is None:
            return Close.ENGINE_UNAVAILABLE
        if self.open >= self._settings.max_connections:
            return Close.AT_CAPACITY
        return info

    def knows(self, credentials: Credentials) -> bool:
        """Whether a key fits. Compares every key with every other, so that time tells nothing about
        which one it is."""
        offered, keys = credentials.keys, self._settings.api_keys
        matches = [key.matches(offer) for offer in offered for key in keys]
        return any(matches)

    def _allows(self, origin: str | None, host: str) -> bool:
        if origin is None:
            return True
        origin, host = origin.lower(), host.lower()
        if "*" in self._origins or origin in self._origins:
            return True
        # The server's own page; TLS may have ended before us. Compared as text: an Origin that is
        # no URL fits nothing, and cannot make a parser raise.
        return bool(host) and origin in {f"http://{host}", f"https://{host}"}
