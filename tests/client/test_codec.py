"""The client's half of the wire agrees with the server's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxtral_actors.client import BadEventError, Unknown, decode_event, encode_command
from voxtral_actors.protocol import codec, events
from voxtral_actors.protocol import commands as say

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
COUNT = st.integers(0, 2**40)
JSON = st.dictionaries(TEXT, st.none() | st.booleans() | COUNT | TEXT, max_size=3)
AUDIO = st.binary(min_size=2, max_size=400).map(lambda data: data[: len(data) & ~1])

EVENTS = st.one_of(
    st.builds(
        events.SessionCreated,
        IDS,
        IDS,
        TEXT,
        COUNT,
        TEXT,
        TEXT,
        COUNT,
        COUNT,
        st.dictionaries(TEXT, st.floats(0, 1e6), max_size=3),
        TEXT,
    ),
    st.builds(events.SessionUpdated, IDS, IDS, TEXT),
    st.builds(events.Delta, IDS, IDS, TEXT, COUNT),
    st.builds(
        events.Done, IDS, IDS, TEXT, st.builds(events.Usage, COUNT, COUNT, COUNT, st.floats(0, 1e6))
    ),
    st.builds(events.Cancelled, IDS, IDS, TEXT),
    st.builds(events.Error, IDS, IDS, TEXT, TEXT, TEXT, JSON),
    st.builds(events.Pong, IDS, IDS),
    st.builds(events.SessionEnd, IDS, IDS, TEXT),
)
COMMANDS = st.one_of(
    st.builds(say.Ping, IDS, IDS),
    st.builds(say.End, IDS, IDS),
    st.builds(say.Cancel, IDS, IDS, st.none() | TEXT),
    st.builds(say.SessionUpdate, IDS, IDS, st.none() | TEXT),
    st.builds(say.Start, IDS, IDS),
    st.builds(say.Finalise, IDS, IDS),
    st.builds(say.Append, AUDIO, IDS, IDS),
    st.builds(say.Append, AUDIO),
)


@given(EVENTS)
def test_what_the_server_writes_the_client_reads(event: events.Event) -> None:
    assert decode_event(codec.encode(event)) == event


@given(COMMANDS)
def test_what_the_client_writes_the_server_reads(command: say.Command) -> None:
    assert codec.decode(encode_command(command), 1 << 20) == command


def test_unknown_types_and_fields_are_tolerated() -> None:
    novel = {"type": "speech.started", "session_id": "s", "request_id": "r", "payload": {"at": 1}}
    assert decode_event(json.dumps(novel)) == Unknown("speech.started", "s", "r")

    more = {"type": "pong", "session_id": "s", "request_id": "r", "payload": {"x": 1}, "v": 2}
    assert decode_event(json.dumps(more)) == events.Pong("s", "r")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[]",
        "{}",
        '{"type":"pong","session_id":1,"request_id":"r"}',
        '{"type":"cancelled","session_id":"s","request_id":"r"}',
        '{"type":"transcription.delta","session_id":"s","request_id":"r","payload":[]}',
        '{"type":"transcription.delta","session_id":"s","request_id":"r","payload":{"delta":1}}',
        b"\xff\xfe",
        '{"type":' * 5000,
    ],
)
def test_what_is_no_event_is_a_typed_error(text: str | bytes) -> None:
    with pytest.raises(BadEventError):
        decode_event(text)


def test_the_ids_of_the_envelope_win() -> None:
    payload = {"session_id": "x", "request_id": "y", "reason": "z"}
    text = {"type": "cancelled", "session_id": "s", "request_id": "r", "payload": payload}
    assert decode_event(json.dumps(text)) == events.Cancelled("s", "r", "z")
