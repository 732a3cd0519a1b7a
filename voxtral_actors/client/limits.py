"""The client's own buffer sizes and deadlines, each with its reason.

What both sides share is in `voxtral_actors.limits`. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from typing import Final

from voxtral_actors.limits import BYTES_PER_SAMPLE, FREE_APPEND_MS, SAMPLE_RATE

CONNECT_S: Final = 10.0
"""Default deadline from the first packet to `session.created`. Name look-up, TCP, TLS and upgrade
take under two seconds on a bad mobile network; the rest is patience."""

END_S: Final = 5.0
"""Default deadline of `Session.end`: the server's own grace for a last `done` is as long."""

ANSWER_S: Final = 10.0
"""Deadline of `ping`, `cancel` and `update`: they queue behind at most `OUTBOX_FRAMES`
frames of audio, so this is time for a slow line and not for the server to think."""

HANG_UP_S: Final = 1.0
"""How long leaving `connect` by an exception may take: long enough for a Close frame on any line,
short enough for somebody who pressed Ctrl-C."""

OUTBOX_FRAMES: Final = 4
"""Frames that wait for the socket. The kernel buffers too, so a few keep it busy; more would only
let a `cancel` queue behind more audio."""

MIN_FRAME_BYTES: Final = FREE_APPEND_MS * SAMPLE_RATE // 1000 * BYTES_PER_SAMPLE
"""Smaller pieces of audio are collected up to this: an append below it counts against the server's
message window, and a microphone in 10 ms blocks would run into it."""

MAX_FRAME_BYTES: Final = SAMPLE_RATE * BYTES_PER_SAMPLE
"""A frame carries at most a second of audio. It stays far below the server's message limit, base64
included, and no other frame waits long behind it."""

MAX_MESSAGE_BYTES: Final = 8 << 20
"""The largest message taken from the server: the `done` of hours of speech is well under it."""

KEEP_AUDIO_S: Final = 120.0
"""Default of `Reconnect.keep_audio_s`: as long as reconnecting may take by default, so that a live
source goes on through all of it; 3.8 MB an utterance."""

KEPT_LEAD_S: Final = 1.0
"""Where only a part of an utterance can be sent again, it begins this long before what has text:
words at the seam may come twice, and none is missed."""

STEADY_S: Final = 10.0
"""A connection that lasted for less does not count as a success: the pauses go on growing."""

LEAVING_S: Final = 15.0
"""From the text of an utterance that the server ended by itself to its Close, at most: its grace
for the last text of others, three times over."""

RECEIVE_BYTES: Final = 64 << 10
"""What is read from the socket at once."""

MICROPHONE_BUFFER_S: Final = 30.0
"""Captured audio that waits while the network stalls. What comes after it is counted as lost."""

ASK_S: Final = 5.0
"""For an answer of `/debug/actors`: the server closes an HTTP connection after as long anyway."""

TOP_ROWS: Final = 100
"""Sessions that `top` asks for at most: what the server gives at once, and more than a screen."""
