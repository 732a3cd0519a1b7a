"""A stand-in for the model hub on the loopback, with faults on request.

It answers the three requests of a download as the real one does: the list of files of a commit
(`/api/models/…?blobs=true`), a small file itself (`/…/resolve/…`), and for a large one a redirect
to another host, which must not get the token. Large files are those in `large`.

A fault is a function that takes the handler and the file's bytes and answers in its place; each
request for that file uses up one. What was asked for and how many bytes went out is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

COMMIT = "c0ffee" + "0" * 34
MODEL = "mistralai/Voxtral-Test"
LIST = "the list"

Fault = Callable[["_Handler", bytes], None]


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class Hub:
    """The stand-in: its files, the faults to come, and what happened."""

    def __init__(self, files: dict[str, bytes], large: set[str]) -> None:
        self.files = files
        self.large = large
        self.token: str | None = None
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.requests: list[tuple[str, str, str | None]] = []
        """(file or `LIST`, its Range or nothing, the token)."""
        self.sent: dict[str, int] = defaultdict(int)
        self.closing = threading.Event()
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://localhost:{self.port}"

    def fails(self, name: str, *faults: Fault) -> None:
        self.faults[name] += faults

    def ranges(self, name: str) -> list[str]:
        return [asked for what, asked, _ in self.requests if what == name]

    def listing(self) -> dict[str, Any]:
        siblings = []
        for name, data in self.files.items():
            entry: dict[str, Any] = {
                "rfilename": name, "size": len(data), "blobId": git_sha1(data),
            }  # fmt: skip
            if name in self.large:
                sha = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": sha, "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        return {"_id": "1", "id": MODEL, "modelId": MODEL, "sha": COMMIT, "siblings": siblings}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def do_GET(self) -> None:
        hub, path = self.hub, urlsplit(self.path).path
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        if path.startswith("/api/models/"):
            assert "blobs=" in self.path
            name, data = LIST, json.dumps(hub.listing()).encode()
            known = path.startswith(f"/api/models/{MODEL}")
        elif found := re.fullmatch(f"/{MODEL}/resolve/{COMMIT}/(.+)", path):
            name = found[1]
            known = name in hub.files
            data = hub.files.get(name, b"")
            if known and name in hub.large and not hub.faults[name]:
                self.reply(302, b"", {"Location": f"http://127.0.0.1:{hub.port}/cdn/{name}?sig=1"})
                return
        else:
            name, known = path.removeprefix("/cdn/"), path.startswith("/cdn/")
            data = hub.files.get(name, b"")
            assert token is None, "the token went to another host"
        hub.requests.append((name, self.headers.get("Range", ""), token))
        if hub.faults[name]:
            hub.faults[name].pop(0)(self, data)
        elif not known:
            self.reply(404, b'{"error":"Not found"}', {"X-Error-Code": "RepoNotFound"})
        else:
            self.send(name, data)

    def send(self, name: str, data: bytes, *, limit: int | None = None) -> None:
        """The file or the asked part of it; only `limit` bytes of that really go out."""
        assert self.headers["Accept-Encoding"] == "identity" or name == LIST
        headers, status, start = {"ETag": '"x"', "X-Repo-Commit": COMMIT}, 200, 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, status = int(asked[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        part = data[start:]
        self.reply(status, part[:limit], headers, len(part))
        self.hub.sent[name] += len(part[:limit])
        if limit is not None:
            self.close_connection = True

    def reply(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, length: int = -1
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length < 0 else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def truncates(after: int) -> Fault:
    """The connection ends early."""
    return lambda handler, data: handler.send(_name(handler), data, limit=after)


def stalls(after: int) -> Fault:
    """Some bytes, then silence."""

    def fault(handler: _Handler, data: bytes) -> None:
        handler.send(_name(handler), data, limit=after)
        handler.hub.closing.wait(20)

    return fault


def drips(every_s: float, size: int) -> Fault:
    """The file in small pieces, so that it takes long and never stalls."""

    def fault(handler: _Handler, data: bytes) -> None:
        handler.reply(200, b"", length=len(data))
        for at in range(0, len(data), size):
            if handler.hub.closing.wait(every_s):
                break
            handler.wfile.write(data[at : at + size])
            handler.hub.sent[_name(handler)] += size
        handler.close_connection = True

    return fault


def answers(status: int, body: bytes = b"{}", **headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.reply(status, body, named)


def sends(other: bytes) -> Fault:
    """Other bytes than those of the file, whatever range is asked for."""
    return lambda handler, _: handler.reply(200, other)


def _name(handler: _Handler) -> str:
    if handler.path.startswith("/api/"):
        return LIST
    return handler.path.partition("?")[0].rpartition("/")[2]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up here; that is what is tested."""


@contextmanager
def running(files: dict[str, bytes], large: set[str]) -> Iterator[Hub]:
    hub = Hub(files, large)
    handler = type("Handler", (_Handler,), {"hub": hub})
    with _Server(("127.0.0.1", 0), handler) as server:
        hub.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.closing.set()
            server.shutdown()
            thread.join()


def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
