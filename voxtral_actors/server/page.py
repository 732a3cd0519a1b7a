"""The page at `/`: the files of `voxtral_actors/web`, and the headers that they are served with.

They are read once, when the server starts, and only what was read then can be asked for: no name
that comes over the wire reaches the file system. There is no build step; the browser gets the files
as they stand in the repository. The page holds no secret, so nobody needs a key to see it.

The headers take away from the page all that it does not need. Scripts, styles and connections are
the server's own, nothing is inline, and with `require-trusted-types-for` the browser itself sees to
it that text only ever enters the page as text. `quart_app.py` has the routes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib import resources

import attrs

INDEX = "index.html"
FOLDER = "web"
"""Under this path are the files that `index.html` names; the package has them under this name."""

CONTENT_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",  # the AudioWorklet too
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",  # covers the WebSocket of the same host and port
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}

HEADERS = {
    # Asked for anew each time, and answered 304 while nothing has changed: the files of two
    # versions must never meet in one page.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "; ".join(f"{name} {what}" for name, what in POLICY.items()),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), display-capture=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@attrs.frozen
class Asset:
    """One file of the page, ready to be sent."""

    body: bytes = attrs.field(repr=False)
    content_type: str
    etag: str


def load() -> Mapping[str, Asset]:
    """Every file of the page, by the path of its URL."""
    return dict(_read())


def _read() -> Iterator[tuple[str, Asset]]:
    for entry in (resources.files("voxtral_actors") / FOLDER).iterdir():
        content_type = CONTENT_TYPES.get(entry.name.rpartition(".")[2])
        if content_type is not None:
            path = "/" if entry.name == INDEX else f"/{FOLDER}/{entry.name}"
            body = entry.read_bytes()
            yield path, Asset(body, content_type, hashlib.sha256(body).hexdigest()[:32])
