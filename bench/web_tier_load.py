"""The load on the web tier: connections to one server, and the closed loop over them.

Each connection has one message on its way: the next one is sent when the server has taken it, or
has answered it. The frames are made beforehand, so that the load costs less than the server.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Sequence

import msgspec
import pybase64

from bench.processes import Server, cpu_seconds
from bench.raw_websocket import BINARY, TEXT, RawWebSocket, frame
from bench.sounds import speech
from bench.web_tier_servers import KEY, OURS, Counters

CHUNK_BYTES = 2560
WARM_UP = 2_000
"""Messages before those that count."""
NAP_S = 50e-6
"""When no connection may send: the server is busy, and the machine's other core is not ours."""
STUCK_S = 30.0


class Feeder:
    """The connections to one server, and the closed loop over them."""

    def __init__(self, server: Server, counters: Counters, *, answer: bool) -> None:
        self.server = server
        self._counters = counters
        self._answer = answer
        self._sockets: list[RawWebSocket] = []
        self.busy: list[float] = []
        """Of each measurement the share of a core that the server had. It takes the whole of it
        unless the load is too slow, or the machine has no core for it."""

    def connect(self, connections: int) -> None:
        ours = self.server.name == OURS
        for number in range(connections):
            socket = RawWebSocket(self.server.port, "/ws" if ours else f"/ws?{number}", KEY)
            self._sockets.append(socket)
            while ours and not socket.answers:  # session.created
                socket.receive()
            if ours:
                socket.send(frame(TEXT, _message("input_audio_buffer.commit", number)))
            self._counters[number] = 0

    def connect_idle(self, connections: int) -> None:
        """Admitted connections that say nothing."""
        for _ in range(connections):
            socket = RawWebSocket(self.server.port, "/ws", KEY)
            self._sockets.append(socket)
            while not socket.answers:  # session.created
                socket.receive()

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()
        self._sockets.clear()

    def cost(self, kind: str, messages: int) -> float:
        """Microseconds of the server's CPU for each of `messages`."""
        frames = [_audio_frame(kind, number) for number in range(len(self._sockets))]
        loop = self._answered if self._answer else self._swallowed
        loop(frames, min(WARM_UP, messages))
        started, before = time.monotonic(), cpu_seconds(self.server.pid)
        sent = loop(frames, messages)
        used = cpu_seconds(self.server.pid) - before
        self.busy.append(used / (time.monotonic() - started))
        return 1e6 * used / sent

    def _swallowed(self, frames: Sequence[bytes], messages: int) -> int:
        """Send until `messages` are out, each when the connection's last one has been counted."""
        counters, numbers = self._counters, range(len(frames))
        due = [counters[number] for number in numbers]
        sent, limit = 0, time.monotonic() + STUCK_S
        while sent < messages:
            before = sent
            for number in numbers:
                if counters[number] >= due[number]:
                    due[number] += 1
                    sent += 1
                    self._sockets[number].send(frames[number])
            if sent == before:
                time.sleep(NAP_S)
                _check(limit)
        while any(counters[number] < due[number] for number in numbers):
            time.sleep(NAP_S)
            _check(limit)
        return sent

    def _answered(self, frames: Sequence[bytes], messages: int) -> int:
        """The same, each when the last one's answer has come."""
        sent = done = 0
        with selectors.EpollSelector() as selector:
            for number, socket in enumerate(self._sockets):
                socket.answers = 0
                selector.register(socket.socket, selectors.EVENT_READ, number)
                socket.send(frames[number])
                sent += 1
            while done < sent:
                ready = selector.select(STUCK_S)
                if not ready:
                    raise TimeoutError("the server answers no more")
                for key, _ in ready:
                    socket = self._sockets[key.data]
                    socket.receive()
                    done += socket.answers
                    if socket.answers and sent < messages:
                        socket.send(frames[key.data])
                        sent += 1
                    socket.answers = 0
        return sent


def _check(limit: float) -> None:
    if time.monotonic() > limit:
        raise TimeoutError("the server takes no more messages")


def _message(kind: str, number: int, **payload: object) -> bytes:
    ids = {"type": kind, "session_id": f"s{number}", "request_id": "r0"}
    return msgspec.json.encode(ids | {"payload": payload})


def _audio_frame(kind: str, number: int) -> bytes:
    chunk = speech()[SPOKEN_AT : SPOKEN_AT + CHUNK_BYTES]
    if kind == "binary":
        return frame(BINARY, chunk)
    audio = pybase64.b64encode_as_string(chunk)
    return frame(TEXT, _message("input_audio_buffer.append", number, audio=audio))


SPOKEN_AT = 64_000
"""Two seconds into the speech somebody speaks."""
