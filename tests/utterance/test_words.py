"""Words and spacing: languages, punctuation, and texts that are cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxtral_actors.utterance.journal import Said
from voxtral_actors.utterance.words import key_of, spaced, split


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("one", "two", " two"),
        ("one", " two", " two"),
        ("one ", "two", "two"),
        ("one ", " two", "two"),
        ("one", "  two", "  two"),
        ("One.", "Two", " Two"),
        ("one", "TWO", " TWO"),
        ("one", ", two", ", two"),
        ("one", " . Two", ". Two"),
        ("one", ")", ")"),
        ("vraiment", " ?", " ?"),
        ("really", "?", "?"),
        ("(", "one", "one"),
        ("¿", " qué", "qué"),
        ("one", "- two", " - two"),
        ("one", "'cause", " 'cause"),
        ("今日は", "晴れ", "晴れ"),
        ("今日は", " 晴れ", "晴れ"),
        ("今日は。", "晴れ", "晴れ"),
        ("今日は", "。晴れ", "。晴れ"),
        ("我用", "Python", "Python"),
        ("我用", " Python", " Python"),
        ("Python", "很好", "很好"),
        ("สวัสดี", "ครับ", "ครับ"),
        ("안녕", "하세요", " 하세요"),
        ("नमस्ते", "दुनिया", " दुनिया"),
        ("नमस्ते", "।", "।"),
        ("مرحبا", "، نعم", "، نعم"),
    ],
)
def test_the_space_between_two_texts(before: str, after: str, expected: str) -> None:
    assert spaced(before, after) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("one two", ["one", " two"]),
        (" one, two. ", [" one,", " two. "]),
        ("one - two", ["one -", " two"]),
        ("- one", ["- one"]),
        ("...", ["..."]),
        ("今日は、晴れ。", ["今", "日", "は、", "晴", "れ。"]),
        ("我用 Python 3", ["我", "用", " Python", " 3"]),
        ("हिन्दी में", ["हिन्दी", " में"]),
        ("don't", ["don't"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert [word.text for word in split([Said(text, 0)])] == expected


@pytest.mark.parametrize(
    ("one", "other"), [("Hello,", " hello"), ("STRASSE", "straße"), ("ﬁn", "fin"), ("It's", "its")]
)
def test_what_counts_as_the_same_word(one: str, other: str) -> None:
    assert key_of(one) == key_of(other)


@given(st.lists(st.text(st.sampled_from("ab, .今、่"))))
def test_joined_words_are_the_text_however_it_is_cut(texts: list[str]) -> None:
    found = split([Said(text, at) for at, text in enumerate(texts) if text])
    text = "".join(texts)

    assert "".join(word.text for word in found) == (text if text.strip() else "")
    assert [word.text for word in found] == [word.text for word in split([Said(text, 0)])]
    assert all(word.begins <= word.ends for word in found)


def test_a_word_knows_where_it_comes_from() -> None:
    (one, two) = split([Said("on", 1), Said("e", 2), Said(" tw", 3), Said("o", 4, late=9)])

    assert (one.begins, one.ends, one.late) == (1, 2, 0)
    assert (two.begins, two.ends, two.late) == (3, 4, 9)
    assert (one.end, two.first, two.end) == (3, 4, 7)
