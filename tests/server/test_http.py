"""HTTP beside the WebSocket: probes, metrics, and what is none of them."""

from __future__ import annotations

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.engine.scripted import NEVER, Script
from tests.server.harness import Served, serving, until
from tests.server.wire_client import KEY
from tests.server.wire_helpers import Raw
from voxtral_actors.protocol.events import Delta, Error
from voxtral_actors.server import quart_app


async def probe(server: Served) -> tuple[int, str]:
    """What /readyz says; /healthz must be well in any case."""
    health = await server.http("/healthz")
    assert (health.status, health.json()) == (200, {"status": "ok"})
    ready = await server.http("/readyz")
    return ready.status, ready.json()["status"]


@pytest.fixture(autouse=True)
def every_scrape_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two scrapes in a tenth of a second would be one."""
    monkeypatch.setattr(quart_app, "METRICS_AGE_S", 0)


async def figures(server: Served) -> dict[str, float]:
    """All of /metrics: `name{label,…}` -> value, without the prefix."""
    answer = await server.http("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = ",".join(sample.labels.values())
            name = sample.name.removeprefix("voxtral_")
            found[f"{name}{{{labels}}}" if labels else name] = sample.value
    return found


async def test_readyz_follows_the_engine() -> None:
    with trio.fail_after(10):
        async with serving(Script(start_s=0.3)) as server:
            assert await probe(server) == (503, "starting")
            await server.engine.wait_ready()
            assert await probe(server) == (200, "ready")
            server.scripted.kill()
            await until(lambda: server.engine.info is None, "the engine lives")
            assert await probe(server) == (503, "starting")
            await server.engine.wait_ready()
            assert await probe(server) == (200, "ready")


async def test_p16_readyz_says_503_from_the_start_of_the_drain() -> None:
    with trio.fail_after(10):
        async with serving(VOXTRAL_REPLAY_BUDGET_S="0") as server:
            async with server.session() as client:
                await client.start()
                await client.alive()
                server.running.stop.set()
                await until(lambda: server.running.service.drain.started, "no drain")
                assert await probe(server) == (503, "draining")
                assert (await figures(server))["draining"] == 1
                server.scripted.kill()
                await client.hear(Error)  # the utterance's end
                await client.refused("shutting_down", "shutting_down")
                assert await client.closed() == (1012, "shutting_down")
            await server.returned.wait()


async def test_http_answers_while_the_engine_starts_and_when_it_cannot() -> None:
    with trio.fail_after(10):
        async with serving(Script(start_s=NEVER)) as server:
            assert await probe(server) == (503, "starting")
            assert (await figures(server))["engine_ready"] == 0
        async with serving(Script(fail_start=1000)) as server:
            await until(lambda: server.engine.statistics().deaths == 1, "no failure")
            assert await probe(server) == (503, "starting")
            found = await figures(server)
            assert found["engine_deaths_total"] == 1
            assert found["engine_starts_total"] == 0


async def test_metrics_are_the_figures_of_the_moment() -> None:
    with trio.fail_after(10):
        async with serving() as server:
            before = await figures(server)
            assert before["ready"] == before["engine_ready"] == 1
            assert before["draining"] == before["connections_open"] == 0
            assert before["connections_limit"] == 8
            assert before["engine_slots"] == 4
            assert before["sockets_open"] == before["sockets_unadmitted"] == 1  # the scrape's own

            async with server.session() as client, server.session(), server.session():
                await client.start("one")
                await client.start("two")
                await client.next()  # one is cancelled
                await client.alive()
                async with server.connect(X_API_Key="wrong") as refused:
                    await refused.next()
                    await refused.closed()
                during = await figures(server)
            assert during["connections_open"] == 3
            assert during["connections_total"] == 3
            assert during["connections_refused_total{authentication_failed}"] == 1
            assert during["sockets_open"] - during["sockets_unadmitted"] == 3
            assert during["engine_slots_taken"] == 1
            assert during["engine_streams_total"] == 2

            await server.empty()
            async with server.session() as client:
                await client.say("end")
                await client.next()
                await client.closed()
            await server.empty()
            after = await figures(server)
            assert after["connections_open"] == after["engine_slots_taken"] == 0
            assert after["connections_total"] == 4
            assert after["connections_ended_total{normal,client_left}"] == 3
            assert after["connections_ended_total{normal,end}"] == 1
            assert after["sockets_failures_total"] == 0
            assert after["engine_starts_total"] == 1
            assert after["process_resident_memory_bytes"] > 0


async def test_p5_metrics_agree_with_the_objects_they_are_read_from() -> None:
    with trio.fail_after(10):
        async with serving(MAX_CONCURRENT_CONNECTIONS="1") as server, server.session() as client:
            await client.start()
            await client.send(b"\x01\x02" * 1280)
            await client.hear(Delta)
            async with server.connect(X_API_Key=KEY) as other:
                await other.refused("server_at_capacity", "server_at_capacity")
            found = await figures(server)
            engine = server.engine.statistics()
            assert found["connections_open"] == server.admission.open == 1
            assert found["connections_refused_total{server_at_capacity}"] == 1
            assert found["engine_slots_taken"] == engine.slots_taken == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/healthz/", 404),
        ("GET", "/../etc/passwd", 404),
        ("GET", "/%00", 404),
        ("POST", "/healthz", 405),
        ("PUT", "/metrics", 405),
        ("DELETE", "/readyz", 405),
        ("GET", "/ws", 400),
        ("POST", "/ws", 405),
    ],
)
async def test_anything_else_is_refused(method: str, path: str, status: int) -> None:
    with trio.fail_after(10):
        async with serving() as server, server.bystander():
            assert (await server.http(path, method)).status == status
            assert (await server.http(path, method, b"x" * 10_000)).status == status


async def test_head_and_options_are_answered_without_a_body() -> None:
    with trio.fail_after(10):
        async with serving() as server:
            for method in ("HEAD", "OPTIONS"):
                answer = await server.http("/healthz", method)
                assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("path", ["/healthz", "/nothing"])
@pytest.mark.parametrize(
    "length", ["Content-Length: 10000000000", "Transfer-Encoding: chunked"], ids=["long", "endless"]
)
async def test_nobody_waits_for_a_body(path: str, length: str) -> None:
    """The answer comes before the body does, and ends the connection: no body is ever held."""
    with trio.fail_after(10):
        async with serving() as server, await server.stream() as stream:
            raw = Raw(stream)
            await raw.send(f"POST {path} HTTP/1.1\r\nHost: h\r\n{length}\r\n\r\n".encode())
            head = await raw.head()
            assert head.startswith((b"HTTP/1.1 405 ", b"HTTP/1.1 404 "))
            await raw.rest()


async def test_scrapes_of_one_moment_share_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks a hundred times a second costs no more than who asks ten times."""
    monkeypatch.setattr(quart_app, "METRICS_AGE_S", 3600)
    with trio.fail_after(10):
        async with serving() as server:
            before = await figures(server)
            async with server.session() as client:
                await client.alive()
                assert await figures(server) == before
