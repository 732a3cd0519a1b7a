"""Who gets in: keys, origins and room, through real handshakes."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Iterator

import pytest
import structlog
import trio

from tests.engine.scripted import Scripted
from tests.server.harness import OTHER_KEY, Served, serving, until
from tests.server.wire_client import KEY
from tests.server.wire_helpers import Raw, upgrade_request
from voxtral_actors import logs
from voxtral_actors.connection.drain import Drain
from voxtral_actors.engine.actor import EngineActor
from voxtral_actors.protocol.events import Error
from voxtral_actors.secret import Secret
from voxtral_actors.server.admission import Admission, Credentials
from voxtral_actors.settings import load

# --- P8: origins ---------------------------------------------------------------------------------

ALLOW = "https://app.example,https://App2.Example:8443,http://[::1]:3000"
HERE = "here.example:8000"
ORIGINS: list[tuple[str, str, str | None, bool]] = [
    # WS_ALLOWED_ORIGINS, Host, Origin, whether it is let in.
    ("", HERE, None, True),
    ("", HERE, "http://here.example:8000", True),
    ("", HERE, "https://here.example:8000", True),  # TLS ends at a proxy
    ("", HERE, "http://HERE.example:8000", True),
    ("", "Here.Example:8000", "http://here.example:8000", True),
    ("", "[::1]:8000", "http://[::1]:8000", True),
    ("", HERE, "", False),
    ("", HERE, "null", False),
    ("", HERE, "http://here.example", False),
    ("", HERE, "http://here.example:80", False),
    ("", HERE, "http://here.example:8001", False),
    ("", HERE, "http://here.example:80000", False),
    ("", HERE, "http://elsewhere.example", False),
    ("", HERE, "http://here.example:8000.evil.example", False),
    ("", HERE, "http://evil-here.example:8000", False),
    ("", HERE, "http://evil.here.example:8000", False),
    ("", HERE, "http://here.example:8000@evil.example", False),
    ("", HERE, "http://evil.example@here.example:8000", False),
    ("", HERE, "http://evil.example/here.example:8000", False),
    ("", HERE, "http://evil.example#http://here.example:8000", False),
    ("", HERE, "http://here.example:8000/", False),
    ("", HERE, "http://here.example:8000 http://evil.example", False),
    ("", HERE, "file://here.example:8000", False),
    ("", HERE, "chrome-extension://here.example:8000", False),
    ("", HERE, "//here.example:8000", False),
    ("", HERE, "here.example:8000", False),
    ("", HERE, "http://", False),
    ("", HERE, "http://[::1", False),  # no URL at all
    ("", HERE, "http://[x]/", False),
    ("", HERE, "http://\u212aelvin".encode().decode("latin-1"), False),
    ("", HERE, "http://a\u2100b".encode().decode("latin-1"), False),
    (ALLOW, HERE, None, True),
    (ALLOW, HERE, "https://app.example", True),
    (ALLOW, HERE, "https://APP.example", True),
    (ALLOW, HERE, "https://app2.example:8443", True),  # browsers write it in lower case
    (ALLOW, HERE, "http://[::1]:3000", True),
    (ALLOW, HERE, "http://here.example:8000", True),  # its own page is always allowed
    (ALLOW, HERE, "http://app.example", False),
    (ALLOW, HERE, "https://app.example:444", False),
    (ALLOW, HERE, "https://app.example.evil.example", False),
    (ALLOW, HERE, "https://evil-app.example", False),
    (ALLOW, HERE, "https://sub.app.example", False),
    (ALLOW, HERE, "https://app.example@evil.example", False),
    (ALLOW, HERE, "https://app.exampl", False),
    (ALLOW, HERE, "null", False),
    ("*", HERE, "https://anything.example", True),
    ("*", HERE, "null", True),
    ("*", HERE, None, True),
]


@pytest.mark.parametrize("allowed", ["", ALLOW, "*"], ids=["unset", "list", "all"])
async def test_p8_origins(allowed: str) -> None:
    with trio.fail_after(20):
        async with serving(WS_ALLOWED_ORIGINS=allowed) as server:
            for setting, host, origin, fits in ORIGINS:
                if setting == allowed:
                    answer = await first_event(server, host, origin)
                    assert (b"session.created" in answer) is fits, (host, origin)
                    assert (b"origin_not_allowed" in answer) is not fits, (host, origin)


async def first_event(server: Served, host: str, origin: str | None, key: str = KEY) -> bytes:
    """The first frame for a handshake with exactly these headers."""
    extra = [b"X-API-Key: " + key.encode()]
    if origin is not None:
        extra.append(b"Origin: " + origin.encode("latin-1"))
    async with await server.stream() as stream:
        raw = Raw(stream)
        request = upgrade_request("/ws", *extra).replace(b"Host: here", b"Host: " + host.encode())
        await raw.send(request)
        assert (await raw.head()).startswith(b"HTTP/1.1 101 "), (host, origin)
        _, payload = await raw.frame()
        return payload


async def test_p8_a_missing_origin_needs_a_key_like_any_other() -> None:
    with trio.fail_after(10):
        async with serving() as server:
            assert b"authentication_failed" in await first_event(server, HERE, None, key="wrong")


# --- P7: keys ------------------------------------------------------------------------------------


@pytest.fixture
def real_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The logs as `serve` writes them, at their most talkative."""
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("debug", "json")  # told of no key, it can mask none that is written
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


async def test_p7_no_key_is_ever_written(
    real_logs: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    """A whole life of a server: right keys and wrong ones, in every place, let in and refused."""
    wrong = "wrong-key-of-somebody"
    with trio.fail_after(20):
        async with serving(MAX_CONCURRENT_CONNECTIONS="1") as server:
            for key in (KEY, OTHER_KEY, wrong):
                for offer in (
                    {"query": f"api_key={key}"},
                    {"query": f"api_key={key}", "Origin": "https://evil.example"},
                    {"X_API_Key": key},
                    {"Authorization": f"Bearer {key}"},
                    {"Authorization": f"Basic {key}"},
                ):
                    async with server.connect(**offer) as client:
                        await client.next()
                protocols = ["voxtral.v1", f"voxtral-api-key.{key}"]
                async with server.connect(subprotocols=protocols) as client:
                    await client.next()
                    await client.send(key)  # and as a message that makes no sense
                    await client.say(key, key)
                    await client.say("input_audio_buffer.commit", key)
                for path in (f"/ws?api_key={key}", f"/readyz?api_key={key}", f"/{key}"):
                    await server.http(path)
                async with await server.stream() as stream:
                    await stream.send_all(f"GET /ws?api_key={key} HTTP/9.9\r\n\r\n".encode())
                    await Raw(stream).gone()
            async with server.session(), server.connect(f"api_key={KEY}") as client:
                await client.refused("server_at_capacity", "server_at_capacity")
    text = real_logs.getvalue() + "".join(capfd.readouterr())
    assert "connection.ended" in text
    for key in (KEY, OTHER_KEY, wrong):
        assert key not in text


def test_p7_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """How often keys are compared says nothing of which one was right, or whether one was."""
    compared = []
    matches = Secret.matches

    def counted(self: Secret, candidate: str) -> bool:
        compared.append(candidate)
        return matches(self, candidate)

    monkeypatch.setattr(Secret, "matches", counted)
    settings = load({"VOXTRAL_API_KEY": "one,two,three", "MAX_CONCURRENT_CONNECTIONS": "1"})
    admission = Admission(settings, EngineActor(Scripted().backend), Drain())
    for offered in ("one", "two", "three", "four"):
        compared.clear()
        with admission.admit(Credentials((offered, "x"), None, "here")):
            pass
        assert Counter(compared) == {offered: 3, "x": 3}


# --- The order of the checks, and P5: the count --------------------------------------------------


async def test_who_has_no_key_learns_nothing_else() -> None:
    """Key before origin before drain before engine before room."""
    with trio.fail_after(10):
        async with serving(MAX_CONCURRENT_CONNECTIONS="1") as server:
            async with server.session() as client:
                await client.start()
                await client.alive()
                bad_key = {"X_API_Key": "wrong"}
                good = {"X_API_Key": KEY}
                foreign = {**good, "Origin": "https://evil.example"}

                async def refusal(**headers: str) -> str:
                    async with server.connect(**headers) as other:
                        return (await other.hear(Error)).code

                async def all_three() -> list[str]:
                    return [await refusal(**offer) for offer in (bad_key, foreign, good)]

                first = ["authentication_failed", "origin_not_allowed"]
                assert await all_three() == [*first, "server_at_capacity"]
                server.scripted.kill()
                await until(lambda: server.engine.info is None, "the engine lives")
                assert await all_three() == [*first, "engine_unavailable"]
                await server.engine.wait_ready()
                server.running.service.drain.start(trio.current_time() + 60)
                assert await all_three() == [*first, "shutting_down"]
            assert server.admission.refused["authentication_failed"] == 3
