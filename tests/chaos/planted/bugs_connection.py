"""Bugs in one connection: its actors, its session, its timers."""

from __future__ import annotations

from typing import Final

from tests.chaos.planted.planting import Bug, Edit

CONNECTION_BUGS: Final = (
    Bug(
        "channel left open",
        "The reader does not close its channel.",
        Edit("connection.reader:Reader.run", "self._inbound.send, ", ""),
        finding="P5: an open channel end",
    ),
    Bug(
        "cancel swallowed",
        "The supervisor takes a cancel for the error of an actor, and keeps it.",
        Edit("connection.supervisor:serve", "except* Exception", "except* BaseException"),
        finding="P1: the server has a bug",
    ),
    Bug(
        "streams kept by a connection that is gone",
        "A connection that ends does not let go of its engine streams.",
        Edit("connection.bridge:Bridge.run", "voice.abort()", "pass"),
        finding="slots are left of nobody",
    ),
    Bug(
        "abort forgotten",
        "A cancel ends the utterance, and the engine goes on with it.",
        Edit("connection.bridge:Bridge._step", "living.abort()", "pass"),
        finding="slots are left of nobody",
    ),
    Bug(
        "audio overtakes",
        "Audio goes past the limiter while what was said before it waits there.",
        Edit("connection.limiter:Limiter.pass_by", "not self._inbound.idle", "False"),
        finding="no_active_request",
    ),
    Bug(
        "audio overtakes at the reader",
        "Audio goes past the reader while what was said before it waits in the socket's queue.",
        Edit("server.websocket_stream:WebSocket._deliver", "self._inbox.idle", "True"),
        finding="no_active_request",
    ),
    Bug(
        "audio overtakes at the bridge",
        "Audio goes past the bridge's task while what was said before it waits there.",
        Edit("connection.bridge:Bridge.pass_by", "not self._admitted.idle", "False"),
        finding="no_active_request",
    ),
    Bug(
        "end of the audio not passed on",
        "A final commit does not reach the engine.",
        Edit("connection.voice:Voice._do", "link.stream.finish()", "pass"),
        finding="P11",
    ),
    Bug(
        "outbox without bounds",
        "What waits for a client that does not read has no limit.",
        Edit("connection.wiring:open_wiring", "(OUTBOUND_EVENTS)", "(10**9)"),
        finding="P3: more than one step waits",
    ),
    Bug(
        "audio dropped",
        "Audio that comes while the backlog is full is thrown away.",
        Edit(
            "connection.voice:Voice._do",
            "link.stream.feed(pcm)",
            "link.backlog.full or link.stream.feed(pcm)",
        ),
        finding="none was lost",
    ),
    Bug(
        "no back-pressure",
        "The bridge reads on however far the engine is behind.",
        Edit("connection.bridge:Bridge._listen", "await voice.wait_room()", "pass"),
        Edit("connection.bridge:Bridge.pass_by", "voice.full", "False"),
        finding="samples wait at the engine",
    ),
    Bug(
        "idle timer fed by the engine",
        "The engine's progress without text counts as activity.",
        Edit(
            "connection.voice:Voice._listen",
            "await self._tell(self._hear(number, link, event))",
            "self._desk.activity.touch(); await self._tell(self._hear(number, link, event))",
        ),
        finding="it is idle",
    ),
    Bug(
        "idle timer off",
        "Who says nothing stays.",
        Edit("connection.idle:run", "if not timeout:", "if True:"),
        finding="it is idle",
    ),
    Bug(
        "duration timer off",
        "A connection may grow as old as it likes.",
        Edit("connection.duration:run", "if not max_duration:", "if True:"),
        finding="it is idle",
    ),
    Bug(
        "last text withheld",
        "An utterance is not finalised before a close by age or drain, so its text is lost.",
        Edit("connection.bridge:Bridge.wind_down", "await self.tell(WindDown())", "pass"),
        finding="P11",
    ),
    Bug(
        "stall watchdog off",
        "An engine that hangs is waited for without end.",
        Edit(
            "connection.backlog:Backlog.deadline",
            "self._behind_since + self._patience",
            "math.inf",
        ),
        finding="P11",
    ),
    Bug(
        "write deadline off",
        "Neither the writer nor the socket's guard gives up a client that does not read.",
        Edit("connection.writer:Writer.run", "self.moved.last + self._deadline", "math.inf"),
        Edit(
            "server.guarded_stream:GuardedStream._send_rest",
            "limit = trio.current_time() + self.options.write_deadline_s",
            "limit = math.inf",
        ),
        finding="does not read and is still connected",
    ),
    Bug(
        "drain closes with the wrong code",
        "A stopping server says 1000, so its clients do not come back.",
        Edit("connection.drain:run", "Close.DRAINING", "Close.NORMAL"),
        finding="NORMAL",
    ),
    Bug(
        "drain waits for nothing",
        "Nobody tells the drain that the last utterance is over.",
        Edit("connection.bridge:Bridge._hear", "self._quiet.unpark_all()", "pass"),
        finding="P16",
    ),
    Bug(
        "terminal event twice",
        "An utterance says twice that it is over.",
        Edit(
            "protocol.session:Session._end",
            "Emit(utterance.end(why))]",
            "*[Emit(utterance.end(why))] * 2]",
        ),
        finding="ends nothing",
    ),
    Bug(
        "text after cancelled",
        "A cancel finalises, so the text of what was said follows the `cancelled`.",
        Edit(
            "protocol.session:Session._cancel",
            'return self._end(self.active, message.reason or "client_request")',
            'said = Emit(self.active.end("client_request")); return [*self._finish(message), said]',
        ),
        finding="of no living utterance",
    ),
    Bug(
        "barge-in without a word",
        "The utterance that is talked over has no end.",
        Edit(
            "protocol.session:Session._start",
            'self._end(self.active, "superseded") if self.active else []',
            "[]",
        ),
        finding="P",
    ),
    Bug(
        "barge-in forgets the old stream",
        "The engine works on for the utterance that was talked over.",
        Edit("protocol.session:Session._start", '"superseded") if', '"superseded")[1:] if'),
        finding="streams without an utterance",
    ),
    Bug(
        "no error before the close",
        "The Close frame comes without the event that says why.",
        Edit("protocol.session:Session._close", "Emit(farewell(*ids, close)), ", ""),
        finding="P17",
    ),
    Bug(
        "bad messages not counted",
        "Who sends rubbish may go on for ever.",
        Edit("protocol.session:Session._bad", "self.bad_messages += 1", "pass"),
        finding="too many bad messages",
    ),
    Bug(
        "close forgets tails",
        "A close ends what takes audio, and not what is being finalised.",
        Edit(
            "protocol.session:Session._close",
            "self._living()",
            "[self.active] if self.active else []",
        ),
        finding="without the end of a stream",
    ),
    Bug(
        "drain lets utterances start",
        "A connection that is about to be closed takes on more.",
        Edit("connection.drain:_leave", "await bridge.tell(StopStarts())", "pass"),
        finding="started after the stop",
    ),
    Bug(
        "drain lets everybody go at once",
        "The clients of a server that stops come to the next one all at the same moment.",
        Edit("connection.drain:_leave", "await trio.sleep(turn)", "pass"),
        finding="before its turn",
    ),
    Bug(
        "late audio is an error",
        "Audio that was under way when the engine ended the utterance earns errors.",
        Edit(
            "protocol.session:Session._active_ends",
            "self._late = self.active.request_id",
            "pass",
        ),
        finding="P9",
    ),
    Bug(
        "rate limiter off by one",
        "A window lets one message more through than its limit.",
        Edit("protocol.rate:Window.admit", "== self.limit:", "> self.limit:"),
        finding="a window",
    ),
)
