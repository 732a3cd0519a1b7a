"""Tokens to text."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxtral_actors.engine.vllm_text import TokenText

PIECES = [b"", b" Hello", b" w", b"\xc3", b"\xa9", b"\xf0\x9f", b"\x98\x80", b"\xff", b"\xe2\x82"]
SPECIAL, HELLO, W, C3, A9, SMILE_1, SMILE_2, NEVER, CUT = range(len(PIECES))


def said(*tokens: int) -> list[str]:
    text = TokenText(PIECES.__getitem__)
    return [text.feed(token) for token in tokens]


@pytest.mark.parametrize(
    ("tokens", "texts"),
    [
        ([HELLO, W], [" Hello", " w"]),
        ([SPECIAL, HELLO, SPECIAL], ["", " Hello", ""]),
        ([C3, A9], ["", "é"]),
        ([SMILE_1, SMILE_2], ["", "😀"]),
        ([C3, SPECIAL, A9], ["", "", "é"]),  # nothing said in between
        ([NEVER, HELLO], ["", "� Hello"]),
        ([C3, HELLO], ["", "� Hello"]),
        ([HELLO, CUT], [" Hello", ""]),  # the end cuts a character in two
        ([HELLO, NEVER, NEVER], [" Hello", "", ""]),
    ],
)
def test_text_comes_when_it_is_whole(tokens: list[int], texts: list[str]) -> None:
    assert said(*tokens) == texts


@given(st.lists(st.binary(max_size=4), max_size=40))
def test_joined_it_is_the_text_of_all_the_bytes(pieces: list[bytes]) -> None:
    """But for what a cut character leaves at the end."""
    text = TokenText(pieces.__getitem__)
    joined = "".join(text.feed(token) for token in range(len(pieces)))

    assert joined == b"".join(pieces).decode("utf-8", "replace").rstrip("�")


@given(st.text(max_size=60), st.integers(0, 2**32))
def test_any_cut_of_a_text_gives_the_text(text: str, seed: int) -> None:
    rng, rest, pieces = random.Random(seed), text.encode(), []
    while rest:
        size = rng.randint(0, 5)
        pieces.append(rest[:size])
        rest = rest[size:]
    decoder = TokenText(pieces.__getitem__)

    assert "".join(map(decoder.feed, range(len(pieces)))) == text.rstrip("�")
