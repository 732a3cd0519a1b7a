"""Which requests are refused before the web stack sees them. Pure: a request in, a status out.

Everything here made some layer behind raise, on input that needs no key, or is a protocol that
this server does not speak.
"""

from __future__ import annotations

import binascii
from http import HTTPStatus

import h11

ASCII_ONLY = (b"connection", b"upgrade", b"sec-websocket-")
"""wsproto decodes these as ASCII; HTTP allows any byte in them."""

ABSOLUTE = (b"http://", b"https://", b"ws://", b"wss://")

KEY_BYTES = 16
"""RFC 6455 section 4.2.1: what the client's key is, once decoded from base64."""


def is_upgrade(request: h11.Request) -> bool:
    """Whether the request asks for a WebSocket (it may still ask for it wrongly)."""
    tokens = {
        token.strip().lower()
        for name, value in request.headers
        if name == b"connection"
        for token in value.split(b",")
    }
    upgrades = {value.strip().lower() for name, value in request.headers if name == b"upgrade"}
    return request.method == b"GET" and b"upgrade" in tokens and upgrades == {b"websocket"}


def refusal(request: h11.Request, *, upgrade: bool) -> HTTPStatus | None:
    """The status to refuse the request with, or None to serve it."""
    if request.http_version not in {b"1.0", b"1.1"}:
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    if not _is_servable(request.target):
        return HTTPStatus.BAD_REQUEST
    for name, value in request.headers:
        if name.startswith(ASCII_ONLY) and not value.isascii():
            return HTTPStatus.BAD_REQUEST
        if upgrade and (
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        ):
            return HTTPStatus.BAD_REQUEST
    return _bad_handshake(request) if upgrade else None


def _bad_handshake(request: h11.Request) -> HTTPStatus | None:
    """RFC 6455 section 4.2.1: one version, which is 13, and one key of the right length."""
    lines = {
        wanted: [value for name, value in request.headers if name == wanted]
        for wanted in (b"sec-websocket-version", b"sec-websocket-key")
    }
    if lines[b"sec-websocket-version"] != [b"13"]:
        return HTTPStatus.UPGRADE_REQUIRED
    try:
        (key,) = lines[b"sec-websocket-key"]
        is_key = len(binascii.a2b_base64(key, strict_mode=True)) == KEY_BYTES
    except ValueError:  # none, several, or no base64
        is_key = False
    return None if is_key else HTTPStatus.BAD_REQUEST


def _is_servable(target: bytes) -> bool:
    """A path, or an absolute URL that has one: routing indexes the path's first character."""
    if target.startswith(b"/"):
        return True
    scheme = next((scheme for scheme in ABSOLUTE if target.lower().startswith(scheme)), None)
    return scheme is not None and b"/" in target[len(scheme) :].partition(b"?")[0]
