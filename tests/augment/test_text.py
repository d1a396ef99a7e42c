from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mia_augment.text import normalize_answer, same_answer


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Red.", "red"),
        ("The color is red.", "color is Red"),
        ("an  apple\n", "Apple!"),
        ("dark-red", "dark red"),
        ("It's a dog", "its dog"),
        ("don’t", "don't"),
        ("1,000", "1000"),
        ("12,345,678 people", "12345678 people"),
        ("STRASSE", "straße"),
        ("ﬁve", "five"),
        ("¿Rojo?", "rojo"),
        ("红色。", "红色"),
        ("1'-5", "1-5"),
    ],
)
def test_case_punctuation_articles_and_spaces_do_not_make_another_answer(first: str, second: str) -> None:
    assert same_answer(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The color is red.", "The color is blue."),
        ("3.5", "35"),
        ("-3", "3"),
        ("−3 degrees", "3 degrees"),
        ("10:30", "1030"),
        ("1/2", "12"),
        (".5", "5"),
        ("C#", "C"),
        ("50%", "50"),
        ("A", "B"),
        ("A", "the"),
        ("The letter is A.", "The letter is."),
        ("The letter is A.", "The letter is B."),
        ("?", "!"),
        ("", "red"),
        ("1,2", "12"),
        ("rôle", "role"),
        ("theme", "me"),
    ],
)
def test_what_carries_meaning_stays(first: str, second: str) -> None:
    assert not same_answer(first, second)


def test_normal_form_is_readable() -> None:
    assert normalize_answer("  The Colour: is a DARK-red. ") == "colour is dark red"
    assert normalize_answer("It costs 1,000.50!") == "it costs 1000.50"
    assert normalize_answer("It is −3.5 °C, at 10:30.") == "it is -3.5 °c at 10:30"


def test_a_lone_article_is_an_answer() -> None:
    assert normalize_answer("A.") == "a"


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalize_answer(text)
    assert normalize_answer(once) == once


@given(st.text(), st.text())
def test_sameness_is_symmetric_and_reflexive(first: str, second: str) -> None:
    assert same_answer(first, first)
    assert same_answer(first, second) == same_answer(second, first)
