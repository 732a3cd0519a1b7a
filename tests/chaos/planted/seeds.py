"""Which storms are played against the planted bugs, and which of them finds each bug quickly."""

from __future__ import annotations

from typing import Final

RANGE: Final = range(280)

SEEDS: Final[dict[str, int]] = {
    "channel left open": 11,
    "cancel swallowed": 7,
    "streams kept by a connection that is gone": 4,
    "abort forgotten": 2,
    "audio overtakes": 1,
    "audio overtakes at the reader": 1,
    "audio overtakes at the bridge": 1,
    "end of the audio not passed on": 2,
    "what did not go out at once is lost": 0,
    "outbox without bounds": 42,
    "audio dropped": 6,
    "no back-pressure": 6,
    "idle timer fed by the engine": 17,
    "idle timer off": 10,
    "duration timer off": 14,
    "last text withheld": 66,
    "stall watchdog off": 154,
    "write deadline off": 10,
    "drain closes with the wrong code": 3,
    "drain waits for nothing": 129,
    "terminal event twice": 0,
    "text after cancelled": 1,
    "barge-in without a word": 2,
    "barge-in forgets the old stream": 2,
    "no error before the close": 0,
    "bad messages not counted": 84,
    "close forgets tails": 24,
    "drain lets utterances start": 1312,
    "drain lets everybody go at once": 3,
    "late audio is an error": 0,
    "rate limiter off by one": 6,
    "slot lost on cancel": 1,
    "engine not told of an abort": 1,
    "slots without limit": 2,
    "generation used twice": 2,
    "terminal event lost with the engine": 42,
    "ready without an engine": 12,
    "engine not restarted": 12,
    "text merged to its last word": 1,
    "token lost on refusal": 11,
    "token lost on cancel": 2,
    "one connection too many": 0,
    "any key fits": 4,
    "refusal without a close": 0,
    "stop without a drain": 10,
    "handshake deadline off": 4,
    "dead peers stay": 18,
    "two send at once": 10,
    "departures never end": 4,
    "sockets never forgotten": 2,
    "messages of any size": 119,
}
"""The name of a bug -> a storm that finds it. Storms that change may need others: a test says so by
taking long, for it goes through all of `RANGE` then."""
