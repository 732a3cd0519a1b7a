"""The app that the listener's tests serve: it echoes, and misbehaves in one way a route."""

from __future__ import annotations

import attrs
import trio
from quart import request, websocket
from quart_trio import QuartTrio

from voxtral_actors.server.wire import Wire, current_wire


@attrs.define
class Seen:
    """What the app noticed, in the order in which it happened."""

    wires: list[Wire] = attrs.field(factory=list)
    messages: list[str | bytes] = attrs.field(factory=list)
    endings: list[str | None] = attrs.field(factory=list)


def echo_app(seen: Seen) -> QuartTrio:
    """`/ws` echoes; the other routes misbehave in one way each, as their name says."""
    app = QuartTrio(__name__)

    @app.route("/healthz")
    async def healthz() -> str:
        return "ok"

    @app.route("/slow")
    async def slow() -> str:
        await trio.sleep_forever()
        return ""

    @app.post("/body")
    async def body() -> str:
        return str(len(await request.get_data()))

    @app.route("/raises")
    async def raises() -> str:
        raise RuntimeError("on purpose")

    @app.websocket("/ws")
    async def ws() -> None:
        await enter()
        try:
            while True:
                message = await websocket.receive() or b""  # an empty binary one arrives as None
                seen.messages.append(message)
                await websocket.send(message)
        finally:
            seen.endings.append(current_wire.get().ending)

    @app.websocket("/flood")
    async def flood() -> None:
        await enter()
        try:
            while True:
                await websocket.send(b"x" * 60_000)
        finally:
            seen.endings.append(current_wire.get().ending)

    @app.websocket("/bye")
    async def bye() -> None:
        """Says its last words and closes, without reading anything."""
        await enter()
        await websocket.send("last words")
        await websocket.close(4000, "bye")

    @app.websocket("/close-then-stay")
    async def close_then_stay() -> None:
        await enter()
        await websocket.close(4000, "bye")
        try:
            await trio.sleep_forever()
        finally:
            seen.endings.append(current_wire.get().ending)

    @app.websocket("/deaf")
    async def deaf() -> None:
        """Accepts and then neither reads nor writes."""
        await enter()
        try:
            await trio.sleep_forever()
        finally:
            seen.endings.append(current_wire.get().ending)

    @app.websocket("/undecided")
    async def undecided() -> None:
        """Never accepts."""
        seen.wires.append(current_wire.get())
        try:
            await trio.sleep_forever()
        finally:
            seen.endings.append(current_wire.get().ending)

    @app.websocket("/unknown-peer")
    async def unknown_peer() -> None:
        """Accepts and listens, and never gets to know the peer."""
        await websocket.accept()
        try:
            while True:
                await websocket.receive()
        finally:
            seen.endings.append(current_wire.get().ending)

    @app.websocket("/last-words")
    async def last_words() -> None:
        """Never gets to know the peer, and closes when it is cancelled."""
        await websocket.accept()
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(1, shield=True):
                await websocket.close(1011, "too late")
            seen.endings.append(current_wire.get().ending)

    @app.websocket("/impatient")
    async def impatient() -> None:
        """Gives a send up after one second, then says something else."""
        await enter()
        with trio.move_on_after(1):
            await websocket.send(b"x" * 1000)
        await websocket.send("after it")
        await trio.sleep_forever()

    @app.websocket("/refuses")
    async def refuses() -> tuple[str, int]:
        return "no key", 401

    @app.websocket("/fails")
    async def fails() -> None:
        await enter()
        raise RuntimeError("on purpose")

    async def enter() -> None:
        await websocket.accept()
        seen.wires.append(current_wire.get())
        current_wire.get().admit()

    return app
