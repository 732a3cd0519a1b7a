"""A `Secret` hides its text and still compares by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxtral_actors.secret import Secret

TEXT = "correct horse battery staple"


@pytest.mark.parametrize("show", [str, repr, "{}".format, "{!r:>40}".format, "%s".__mod__])
def test_p7_no_way_of_printing_shows_the_text(show: object) -> None:
    assert callable(show)
    shown = show(Secret(TEXT))

    assert "********" in shown
    assert TEXT not in shown


def test_p7_a_container_that_is_printed_does_not_show_it() -> None:
    assert repr([{"key": Secret(TEXT)}]) == "[{'key': ********}]"


def test_p7_an_attribute_dictionary_does_not_show_it() -> None:
    """Tools that dump local variables go through `__dict__` or the repr."""
    assert not hasattr(Secret(TEXT), "__dict__")


def test_it_is_revealed_on_request_only() -> None:
    assert Secret(TEXT).reveal() == TEXT


@given(st.text(), st.text())
def test_it_matches_its_own_text_and_no_other(text: str, other: str) -> None:
    """Any text at all, lone surrogates included: a client chooses the candidate."""
    assert Secret(text).matches(text)
    assert Secret(text).matches(other) == (text == other)


@given(st.text(st.characters()), st.binary())
def test_a_candidate_of_undecodable_bytes_is_just_wrong(text: str, raw: bytes) -> None:
    candidate = raw.decode("ascii", "surrogateescape")

    assert Secret(text).matches(candidate) == (text == candidate)


def test_equal_texts_are_equal_secrets_with_equal_hashes() -> None:
    assert Secret(TEXT) == Secret(TEXT)
    assert hash(Secret(TEXT)) == hash(Secret(TEXT))
    assert Secret(TEXT) != Secret("another")
    assert Secret(TEXT) != TEXT
