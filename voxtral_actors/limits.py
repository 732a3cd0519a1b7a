"""Every buffer size, timeout and cap that is not a setting, each with its reason.

A number that an operator may want to change is in `settings.py`; a number that follows from how
the parts fit together is here. "[guess]" marks a value that nothing measured stands behind yet.
Times are seconds, sizes are bytes, unless the name says otherwise.
"""

from __future__ import annotations

from typing import Final

# --- Audio -----------------------------------------------------------------------------------

SAMPLE_RATE: Final = 16_000
"""The one rate on the wire and at every engine: what Voxtral and the embedded recogniser take."""

BYTES_PER_SAMPLE: Final = 2
"""PCM16 little endian, one channel."""

FREE_APPEND_MS: Final = 20
"""An append that carries at least this much audio is not counted by the message window: 20 ms is
the smallest frame that telephony and WebRTC send, and audio is bounded by backlog and TCP."""

# --- Wire ------------------------------------------------------------------------------------

MAX_ID_CHARS: Final = 256
"""`type`, `session_id` and `request_id`: long enough for two UUIDs and a prefix, short enough to
be kept per utterance and echoed in every event."""

MAX_CLOSE_REASON_BYTES: Final = 123
"""RFC 6455 section 5.5: a control frame carries 125 bytes, two of them are the close code."""

MAX_REASON_CHARS: Final = 256
"""The client's own `cancel` reason is echoed, so it is bounded like an id."""

MAX_QUOTED_CHARS: Final = 64
"""How much of a bad value an error message repeats."""

# --- Channels of one connection --------------------------------------------------------------

INBOUND_MESSAGES: Final = 4
"""reader -> limiter and limiter -> bridge. Enough to let the reader decode the next message while
the bridge works, few enough that a 1 MiB message is not held many times over."""

OUTBOUND_EVENTS: Final = 16
"""bridge and timers -> writer. Deltas that find it full are merged in the engine stream, so the
number bounds memory and not what a slow reader gets."""

MAX_TAILS: Final = 4
"""Utterances of one connection that are finalising at the same time. A voice agent has one; more
than a few means that the engine is behind, and each holds an engine slot."""

# --- Engine ----------------------------------------------------------------------------------

STALL_MIN_PENDING_S: Final = 1.0
"""Less audio than this waiting at the engine is not a stall: engines keep a frame and their
look-ahead back until more audio comes (80 ms and 2.5 ms in Voxtral, 30 ms in the embedded one)."""

ENGINE_RESTART_FIRST_S: Final = 0.5
ENGINE_RESTART_MAX_S: Final = 30.0
"""Backoff between two starts of an engine that died: doubled from the first to the largest. A start
of vLLM takes most of a minute, so waiting longer than half of one only adds to the outage."""

ENGINE_STABLE_S: Final = 60.0
"""An engine that ran this long starts over at the first backoff when it dies again."""

ENGINE_STOP_S: Final = 10.0
"""How long the engine may take to stop by itself before it is left behind by force."""

RETRY_AFTER_ENGINE_S: Final = 5.0
"""Retry advice while the engine starts: about a tenth of a start of vLLM, so that clients come
back soon after it is up and not all at once."""

RETRY_AFTER_CAPACITY_S: Final = 2.0
"""Retry advice when the server is full: utterances are seconds long. [guess]"""

RETRY_AFTER_DRAIN_S: Final = 1.0
"""Retry advice on drain: the next replica is there already, or a restart takes longer anyway."""

# --- Listener --------------------------------------------------------------------------------

HANDSHAKE_S: Final = 5.0
"""From accept to an admitted WebSocket or a finished HTTP answer; a slow phone network needs about
one second for it, and everything slower is a slowloris."""

MAX_UNADMITTED_SOCKETS: Final = 256
"""Sockets that are not an admitted WebSocket. Past it the oldest one is closed, so a flood of half
handshakes pushes out itself and not the next authorised client."""

PING_INTERVAL_S: Final = 20.0
"""Server pings on an open WebSocket; below the 30 to 60 s after which NATs and proxies forget."""

PEER_SILENCE_S: Final = 2 * PING_INTERVAL_S + 5.0
"""No byte at all from a peer that owes us two pongs: it is gone (half-open connection)."""

CLOSE_HANDSHAKE_S: Final = 2.0
"""After our Close frame, how long the peer may take to answer and hang up before we cut."""

LISTEN_BACKLOG: Final = 1024
"""Connections the kernel holds while the process is busy; the kernel lowers it to somaxconn."""

LAST_WORDS_S: Final = 1.0
"""The supervisor's shielded last error and Close when an actor failed: a bound, not a wait."""
