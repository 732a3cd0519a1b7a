"""Bugs in what all connections share: engine actor, admission, sockets, the way it all stops."""

from __future__ import annotations

from typing import Final

from tests.chaos.planted.planting import Bug, Edit

SERVER_BUGS: Final = (
    Bug(
        "slot lost on cancel",
        "The slot of an aborted stream is not given back.",
        Edit(
            "engine.actor:EngineActor._deliver",
            "elif isinstance(event, Released):",
            "elif isinstance(event, Released) and generation not in self._leaving:",
        ),
        finding="ended without a cause",
    ),
    Bug(
        "engine not told of an abort",
        "The actor takes the stream for over, and the engine works on.",
        Edit("engine.actor:EngineActor._abort", "stream.backend.abort()", "pass"),
        finding="ended without a cause",
    ),
    Bug(
        "slots without limit",
        "The engine is buried under streams when it is slow to let go.",
        Edit(
            "engine.actor:EngineActor._find_slot",
            "buried = len(self._streams) >= 2 * (info.slots + info.spare)",
            "buried, info = False, attrs.evolve(info, slots=99)",
        ),
        finding="P5: too many slots",
    ),
    Bug(
        "generation used twice",
        "A new stream gets the number of an old one, and what the engine still says of that.",
        Edit(
            "engine.actor:EngineActor.open",
            "self._generation += 1",
            "self._generation = next(n for n in range(999) if n not in self._streams)",
        ),
        finding="echo",
    ),
    Bug(
        "terminal event lost with the engine",
        "Streams of an engine that died are forgotten and not told.",
        Edit(
            "engine.actor:EngineActor._bury",
            'self._free(generation, Failed("engine_lost", "the engine died and is restarted"))',
            "del self._streams[generation]",
        ),
        finding="P11",
    ),
    Bug(
        "ready without an engine",
        "Readiness does not fall when the engine dies.",
        Edit(
            "engine.actor:EngineActor._bury",
            "self._backend = self._info = None",
            "self._backend = None",
        ),
        finding="P15: ready without an engine",
    ),
    Bug(
        "engine not restarted",
        "An engine that died stays dead.",
        Edit("engine.actor:EngineActor.run", "trio.sleep(backoff)", "trio.sleep_forever()"),
        finding="P15: the engine does not come back",
    ),
    Bug(
        "text merged to its last word",
        "Of texts that come faster than they are fetched only the last is kept.",
        Edit("engine.stream:ActorStream.receive", "tuple(self._text)", "(self._text[-1],)"),
        finding=" for ",
    ),
    Bug(
        "token lost on refusal",
        "Who is refused keeps a connection token.",
        Edit("server.admission:Admission.admit", "self.refused[", "self.open += 1; self.refused["),
        finding="P5",
    ),
    Bug(
        "token lost on cancel",
        "Only a connection that ends by itself gives its token back.",
        Edit("server.admission:Admission.admit", "finally:", "except GeneratorExit:"),
        finding="connections are left of nobody",
    ),
    Bug(
        "one connection too many",
        "The house is full one client too late.",
        Edit("server.admission:Admission._decide", "self.open >= ", "self.open > "),
        finding="P5: too many connections",
    ),
    Bug(
        "any key fits",
        "A wrong key opens a session.",
        Edit("server.admission:Admission.knows", "any(matches)", "bool(matches)"),
        finding="has no key",
    ),
    Bug(
        "refusal without a close",
        "Who is refused is told so and left waiting.",
        Edit(
            "server.quart_app:_refuse",
            "await transport.close(close.spec.code, close.spec.slug)",
            "await trio.sleep_forever()",
        ),
        finding="cut without a Close",
    ),
    Bug(
        "stop without a drain",
        "A stopping server does not wait for its sessions.",
        Edit(
            "server.app:run",
            "await _drain(service)",
            "service.drain.start(trio.current_time() + 10)",
        ),
        finding="cut without a Close",
    ),
    Bug(
        "handshake deadline off",
        "Half a handshake keeps its socket.",
        Edit(
            "server.guarded_stream:GuardedStream.__init__",
            "self.opened_at + options.handshake_s",
            "math.inf",
        ),
        finding="P6",
    ),
    Bug(
        "dead peers stay",
        "Nobody looks whether an admitted peer still answers.",
        Edit(
            "server.guarded_stream:GuardedStream.admit",
            "if self._nursery is not None:",
            "if False:",
        ),
        finding="P5",
    ),
    Bug(
        "two send at once",
        "Sends do not wait for each other.",
        Edit(
            "server.guarded_stream:GuardedStream._send_rest",
            "async with self._send_lock:",
            "if True:",
        ),
        finding="another task is sending",
    ),
    Bug(
        "what did not go out at once is lost",
        "Where the socket takes a part of a message, the rest of it is forgotten.",
        Edit("server.guarded_stream:GuardedStream.send_now", "return data[sent:]", "return b''"),
        finding="does not read and is still connected",
    ),
    Bug(
        "departures never end",
        "Who has left keeps its place among those who leave, so a few can and nobody else.",
        Edit(
            "server.guarded_stream:GuardedStream.run",
            "self._departures.release()",
            "pass",
        ),
        finding="has left, and its socket is kept",
    ),
    Bug(
        "sockets never forgotten",
        "The listener counts connections that are gone.",
        Edit("server.listener:Listener._forget", "self._wires.discard(wire)", "pass"),
        finding="sockets are left of nobody",
    ),
    Bug(
        "messages of any size",
        "Neither the socket's guard nor the codec looks at the size of a message.",
        Edit("server.websocket_stream:_Assembly.add", "self._bytes > self._max_bytes", "False"),
        Edit("protocol.codec:decode", "if len(frame) > max_bytes or", "if False and"),
        finding="it sent no WebSocket",
    ),
)
