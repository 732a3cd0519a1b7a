"""What Hypothesis draws from: messages, events, frames and JSON, valid and spoilt.

Request ids come from a pool of three, so that they collide; everything else is as wild as the type
allows.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from voxtral_actors.limits import MAX_ID_CHARS, MAX_REASON_CHARS
from voxtral_actors.protocol import commands, events, signals
from voxtral_actors.protocol.closing import Close

MODEL = "served-model"
REQUEST_IDS = ("a", "b", "c")
SAFE_INTEGER = 2**53

texts = st.text(st.characters(codec="utf-8"), max_size=20)
ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=MAX_ID_CHARS)
request_ids = st.sampled_from(REQUEST_IDS)
session_ids = st.sampled_from(("me", "you"))
integers = st.integers(-SAFE_INTEGER, SAFE_INTEGER)
counts = st.integers(0, SAFE_INTEGER)
finite = st.floats(allow_nan=False, allow_infinity=False)
pcm = st.binary(min_size=2, max_size=64).map(lambda audio: audio[: len(audio) // 2 * 2])

json_scalars = st.none() | st.booleans() | integers | finite | texts
json_values: st.SearchStrategy[Any] = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
details: st.SearchStrategy[dict[str, object]] = st.dictionaries(texts, json_values, max_size=3)
reasons = st.none() | st.text(st.characters(codec="utf-8"), max_size=MAX_REASON_CHARS)


# --- Commands ------------------------------------------------------------------------------------


def spoken(
    session: st.SearchStrategy[str], request: st.SearchStrategy[str]
) -> st.SearchStrategy[commands.Command]:
    """Every command but `End`, under these ids."""
    return st.one_of(
        st.builds(commands.Start, session, request),
        st.builds(commands.Finalise, session, request),
        st.builds(commands.Append, pcm, session, request),
        st.builds(commands.Append, pcm),
        st.builds(commands.Cancel, session, request, reasons),
        st.builds(commands.SessionUpdate, session, request, st.sampled_from((None, MODEL, "x"))),
        st.builds(commands.Ping, session, request),
    )


pooled_commands = spoken(session_ids, request_ids)
all_commands = spoken(ids, ids) | st.builds(commands.End, ids, ids)
bad_messages = st.builds(
    commands.BadMessage,
    st.sampled_from(("invalid_message", "invalid_payload", "rate_limited")),
    texts,
    texts,
    details,
    st.none() | session_ids,
    st.none() | request_ids,
)

# --- Signals -------------------------------------------------------------------------------------


def engine_words(keys: st.SearchStrategy[int]) -> st.SearchStrategy[signals.EngineSaid]:
    return st.one_of(
        st.builds(signals.Heard, keys, texts, st.integers(0, 1000)),
        st.builds(signals.Completed, keys, st.integers(0, 100), st.integers(0, 100)),
        st.builds(
            signals.Broke,
            keys,
            st.sampled_from(("engine_unavailable", "backlog_exceeded")),
            st.just("engine_lost"),
            texts,
            details,
        ),
    )


wishes = st.sampled_from((signals.StopStarts(), signals.WindDown()))
endings: st.SearchStrategy[signals.Message] = st.one_of(
    st.builds(commands.End, session_ids, request_ids),
    st.builds(commands.TooBig, counts),
    st.builds(signals.Closing, st.sampled_from(Close)),
)

# --- Events --------------------------------------------------------------------------------------

usages = st.builds(events.Usage, counts, counts, counts, finite)
_FIELDS: dict[type[events.Event], tuple[st.SearchStrategy[Any], ...]] = {
    events.SessionCreated: (
        texts,
        counts,
        texts,
        texts,
        counts,
        counts,
        st.dictionaries(texts, finite, max_size=3),
        texts,
    ),
    events.SessionUpdated: (texts,),
    events.Delta: (texts, counts),
    events.Done: (texts, usages),
    events.Cancelled: (texts,),
    events.Error: (st.sampled_from(sorted(events.ERROR_CODES)), texts, texts, details),
    events.Pong: (),
    events.SessionEnd: (texts,),
}


def events_of(cls: type[events.Event]) -> st.SearchStrategy[events.Event]:
    return st.builds(cls, ids, ids, *_FIELDS[cls])


# --- Frames --------------------------------------------------------------------------------------

TYPES = (
    "ping",
    "end",
    "cancel",
    "session.update",
    "input_audio_buffer.commit",
    "input_audio_buffer.append",
)
PAYLOAD_FIELDS = ("audio", "final", "model", "reason")


@st.composite
def spoilt_messages(draw: st.DrawFn) -> str:
    """A message that is right but for some of its fields, which are missing, wild or doubtful."""
    payload: dict[str, Any] = {"audio": "AAA=", "final": draw(st.booleans())}
    message: dict[str, Any] = {
        "type": draw(st.sampled_from(TYPES)),
        "session_id": "me",
        "request_id": draw(request_ids),
        "payload": payload,
    }
    for _ in range(draw(st.integers(0, 3))):
        part = draw(st.sampled_from((message, payload)))
        key = draw(st.sampled_from((*message, *PAYLOAD_FIELDS)) | texts)
        if draw(st.booleans()):
            part.pop(key, None)
        else:
            part[key] = draw(json_values)
    return json.dumps(message, ensure_ascii=draw(st.booleans()))


@st.composite
def torn_messages(draw: st.DrawFn) -> str:
    """A message with a few characters cut out or put in."""
    text = draw(spoilt_messages())
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 3)))
    return text[:start] + draw(st.text(max_size=3)) + text[end:]


frames: st.SearchStrategy[str | bytes] = st.one_of(
    spoilt_messages(),
    torn_messages(),
    json_values.map(json.dumps),
    st.text(),  # lone surrogates too
    st.binary(max_size=64),
)
