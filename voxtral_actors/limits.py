"""Every buffer size, timeout and cap that is not a setting, each with its reason; those of the
embedded engine are beside it, in `engine.sphinx_limits`.

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

RECENT_REQUESTS: Final = 16
"""Request ids that a connection remembers after their end. A cancel that crosses the last event of
its utterance must not hit the next one; more than a few cannot be on their way at once."""

# --- Watchdogs -------------------------------------------------------------------------------

STANDSTILL_S: Final = 1.0
"""A timer this late says that the process itself stood still. Its loop is never held that long in
good order; and a second more is also what everybody else gets to catch up."""

HEARTBEAT_S: Final = 0.05
LONG_PASS_S: Final = 0.05
SAME_LINE_S: Final = 60.0
"""Between two looks at how late the loop is: twenty a second cost half a percent of a core. A pass
of the loop that is worth a line: more than half of the 80 ms between two pieces of audio. And the
time between two log lines about one trouble that lasts, which must not fill the disk as well."""

CONNECTION_TASKS: Final = 7 + 3 * (MAX_TAILS + 1)
"""Tasks of one connection at most: seven actors, and for each living utterance a downlink or two,
or one that waits for the engine. One of an utterance that is over may still wait for its turn."""

INVARIANT_SLACK_S: Final = 3.0
"""What a watchdog gets beyond its limit before it counts as failed: more than a standstill."""

INVARIANT_LOG_S: Final = 60.0
INVARIANT_LOG_IDS: Final = 3
"""A violated invariant is logged once a minute, with the first few of the connections concerned."""

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

ENGINE_RELEASE_S: Final = 10.0
"""From a stream's end to the release of its slot; an engine that needs longer holds GPU memory for
nobody, and is given up and restarted. A healthy one takes a step of about 80 ms."""

ENGINE_STOP_S: Final = 5.0
"""How long the engine may take to stop by itself before it is left behind by force."""

ROLL_SPARE_SHARE: Final = 16
"""One spare stream for so many slots, for utterances that roll: the old stream needs about a second
for its last words, once in five minutes. Many that roll at once wait for one another."""

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

DEPARTURES_AT_ONCE: Final = 8
"""Connections that are cleared away at the same time, at 1.5 ms of CPU each: what those who stay
wait for when a crowd leaves."""

PING_INTERVAL_S: Final = 20.0
"""Server pings on an open WebSocket; below the 30 to 60 s after which NATs and proxies forget."""

PEER_SILENCE_S: Final = 2 * PING_INTERVAL_S + 5.0
"""No byte at all from a peer that owes us two pongs: it is gone (half-open connection)."""

CLOSE_HANDSHAKE_S: Final = 2.0
"""After our Close frame, how long the peer may take to answer and hang up before we cut."""

MAX_HTTP_BODY_BYTES: Final = 4096
"""Nothing that this server answers over HTTP takes a body."""

REFUSAL_LINES: Final = 60
REFUSAL_LINES_S: Final = 60.0
"""Log lines about refused clients in any so many seconds; more are counted. One a second is 20 MB
a day at worst, and a minute of it shows where a flood comes from."""

METRICS_AGE_S: Final = 0.1
"""Scrapes closer together share one answer: anybody may ask, and it takes milliseconds."""

LOOK_AT_ONCE: Final = 25
SHOW_AT_ONCE: Final = 3
"""Connections that a scrape or `/debug/actors` looks at, or shows in full, before others get their
turn: about a millisecond of either. A message needs several turns on its way."""

DUTY_SHARE: Final = 0.1
DUTY_PAUSE_MAX_S: Final = 2.0
DUTY_WAIT_S: Final = 3.0
"""Looking at all connections takes this share of the time at most, however often somebody asks. Who
has to wait longer is told so: an HTTP answer has `HANDSHAKE_S`."""

DEBUG_PAGE: Final = 20
DEBUG_PAGE_MAX: Final = 100
DEBUG_OFFSET_MAX: Final = 1_000_000
"""Connections in one answer of `/debug/actors`, as a default and at most: 2 KB each."""

HANDSHAKE_GRACE_S: Final = 1.0
ACCEPT_RETRY_S: Final = 0.05
"""Without a descriptor left: no socket is pushed out before this age, in which most handshakes are
done; and the time between two attempts to accept."""

DESCRIPTORS_A_CONNECTION: Final = 8
OTHER_DESCRIPTORS: Final = 64
"""A socket, and two streams of the embedded engine with two pipes and a handle each; and what the
process itself has open."""

STOP_RESERVE_S: Final = CLOSE_HANDSHAKE_S + ENGINE_STOP_S
"""The part of VOXTRAL_DRAIN_TIMEOUT_S kept for what comes after the last session."""

DRAIN_SPREAD_S: Final = 5.0
"""From the first connection that a drain lets go to the last one that says nothing: a thousand
clients come back at two hundred a second, and long before the deadline. [guess]"""

DRAIN_SPREAD_SHARE: Final = 0.25
"""Of a short drain the spread takes so much; the rest is for utterances to finish."""

DRAIN_LOOK_S: Final = 0.1
"""Between two looks at whether a server that was told to drain is gone: nobody who waits for
minutes misses a tenth of a second."""

LISTEN_BACKLOG: Final = 1024
"""Connections the kernel holds while the process is busy; the kernel lowers it to somaxconn."""

LAST_WORDS_S: Final = 1.0
"""The supervisor's shielded last error and Close when an actor failed: a bound, not a wait."""

# --- Process ---------------------------------------------------------------------------------

COLLECTOR_OBJECTS: Final = 10_000
"""New objects before the garbage collector looks at them. With 512 live sessions a look takes 3 ms
and a full one 200 ms, in which nobody is served. At Python's 700 that is 12 us a message, and a
full one every 5 s; here it is 0.1 us, and none for minutes. In return some 25 MB of what ended
sessions have left behind wait for it."""

# --- vLLM --------------------------------------------------------------------------------------

VLLM_WATCH_S: Final = 0.1
"""Between two looks at whether vLLM is alive. Readiness must follow a death within a second."""

VLLM_STALL_S: Final = 30.0
"""A frame that vLLM has not answered for so long: the engine has stalled. A step takes well under a
second on any machine that keeps up; a kernel that is compiled for a shape that warm-up did not
meet takes some seconds. [guess]"""

VLLM_CLOSE_S: Final = 1.0
"""For the message that aborts a request to be sent, which waits for nothing in a sound engine."""

VLLM_STOP_S: Final = 1.0
VLLM_KILL_S: Final = 2.5
"""For vLLM's processes to end when asked to, and then by force: a killed process still has to give
back gigabytes. With what streams take to close (`VLLM_CLOSE_S`) they fit in
`ENGINE_STOP_S`."""

# --- Model files -------------------------------------------------------------------------------

HUB_TIMEOUT_S: Final = 10.0
"""To connect to the model hub, and between two pieces of a file: then the attempt has stalled. It
also bounds how long a cancelled download takes to notice."""

HUB_ATTEMPTS: Final = 5
"""Attempts in a row that bring nothing. One that brings bytes starts the count anew."""

HUB_BACKOFF_FIRST_S: Final = 1.0
HUB_BACKOFF_MAX_S: Final = 60.0
"""Pauses between attempts double from the first to the largest. A hub that asks for a longer one
is told to the operator: a start that hangs for minutes without a reason helps nobody."""

HUB_REPORT_S: Final = 0.2
"""Between two reports of progress, so that a line on a terminal moves and a log file does not."""

FETCH_LINE_S: Final = 5.0
"""Between two lines about the same file where lines cannot be written over: in a log."""

SNAPSHOT_LOCK_S: Final = 300.0
"""Another process that fetches into the same folder and gives no sign of life for this long is
stuck. Its longest silence is one flush of some gigabytes to a slow disk."""

SNAPSHOT_SPARE_BYTES: Final = 64 * 2**20
"""Room that a download leaves on the disk, for the second tokenizer file and everybody's logs."""

TEKKEN_LOCK_S: Final = 10.0
"""For another process that sets the delay in the same folder; a healthy one takes a second."""

# --- Logs ------------------------------------------------------------------------------------

MIN_MASKED_SECRET_CHARS: Final = 6
"""A key of at least this length is masked wherever it stands in a log line; a shorter one would
mask ordinary words, and is only masked where its place tells what it is. [guess]"""

# --- Demo ------------------------------------------------------------------------------------

DEMO_READY_S: Final = 60.0
"""The embedded engine is ready in about a second; a machine this slow would not keep up anyway."""

DEMO_TRANSCRIPT_S: Final = 60.0
"""The sample lasts eight seconds and is sent at live pace."""
