"""The page's files over HTTP: all there, with the headers that bind the browser. No browser here;
`tests/browser` has what it makes of them."""

from __future__ import annotations

import re
from importlib import resources

import pytest
import trio

from tests.server.harness import serving
from voxtral_actors.server import page

FILES = page.load()
REFERENCE = re.compile(r"""(?:src|href)="([^"]+)"|(?:from |import |URL\()"\./?([^"]+)\"""")


def test_the_package_carries_the_page() -> None:
    """As package data: what is installed is what is served."""
    folder = resources.files("voxtral_actors") / page.FOLDER
    names = {entry.name for entry in folder.iterdir()}
    assert {page.INDEX, "app.js", "worklet.js", "style.css", "icon.svg"} <= names
    assert FILES.keys() == {"/"} | {f"/web/{name}" for name in names - {page.INDEX}}


def test_every_reference_leads_to_a_file_and_every_file_is_referred_to() -> None:
    """The worklet's name stands in a URL that is relative to its module."""
    found = {"/"}
    for asset in FILES.values():
        for absolute, relative in REFERENCE.findall(asset.body.decode()):
            found.add(f"/{absolute}" if absolute else f"/web/{relative}")
    assert found | {"/web/worklet.js"} == FILES.keys()


def test_nothing_is_inline_and_nothing_is_elsewhere() -> None:
    index = FILES["/"].body.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", index)
    for path, asset in FILES.items():
        text = asset.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"""["'(=]\s*(?:https?:)?//\w""", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


@pytest.mark.parametrize("path", FILES)
async def test_each_file_is_served_with_the_headers_that_bind_the_browser(path: str) -> None:
    with trio.fail_after(10):
        async with serving() as server:
            answer = await server.http(path)
    assert (answer.status, answer.body) == (200, FILES[path].body)
    assert answer.headers["content-type"] == FILES[path].content_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    assert "microphone=(self)" in answer.headers["permissions-policy"]
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert not re.search(r"unsafe|data:|\*|https?:", " ".join(policy.values()))


async def test_who_has_a_file_is_not_sent_it_again() -> None:
    with trio.fail_after(10):
        async with serving() as server, await server.stream() as stream:
            etag = (await server.http("/web/app.js")).headers["etag"]
            head = f"GET /web/app.js HTTP/1.1\r\nHost: h\r\nIf-None-Match: {etag}\r\n"
            await stream.send_all(f"{head}Connection: close\r\n\r\n".encode())
            answer = b"".join([part async for part in stream])
    assert answer.startswith(b"HTTP/1.1 304 ")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "path", ["/web", "/web/", "/web/index.html", "/web/../server/page.py", "/web/%2e%2e/cli.py"]
)
async def test_nothing_else_is_served(path: str) -> None:
    with trio.fail_after(10):
        async with serving() as server:
            assert (await server.http(path)).status == 404
            assert (await server.http("/", "POST")).status == 405
