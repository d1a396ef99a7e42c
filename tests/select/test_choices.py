from __future__ import annotations

import math

import pytest
from mia_select.evaluation.multiple_choice import Alternatives, Choices, alternatives, find_choices, most_likely, same_choice

ANIMALS = Choices(question="What is it?", options={"A": "a dog", "B": "a cat", "C": "an iguana"})


@pytest.mark.parametrize(
    "prompt",
    [
        "What is it?\nA. a dog\nB. a cat\nC. an iguana",
        "What is it? (A) a dog (B) a cat (C) an iguana",
        "What is it?\nA) a dog\nB) a cat\nC) an iguana\nAnswer with the option's letter from the given choices directly.",
        "What is it? A: a dog, B: a cat, C: an iguana",
    ],
)
def test_options_are_found_in_the_usual_spellings(prompt: str) -> None:
    assert find_choices(prompt) == ANIMALS


@pytest.mark.parametrize(
    "prompt", ["What is it?", "Is vitamin A. good?", "What is B. or C. here?", "In Image2, what is it? A. a dog"]
)
def test_a_question_without_options_has_none(prompt: str) -> None:
    assert find_choices(prompt) is None


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B. a cat", "B"),
        ("**C**", "C"),
        ("The answer is (B).", "B"),
        ("Option C", "C"),
        ("The answer is a cat.", "B"),
        ("A cat.", "B"),
        ("A dog", "A"),
        ("A cat in the grass.", "B"),
        ("I see an iguana", "C"),
        ("It is a dog in the grass.", "A"),
        ("D", None),
        ("a dog or a cat", None),
        ("Nothing", None),
        ("", None),
    ],
)
def test_a_response_names_an_option_by_letter_or_text(response: str, letter: str | None) -> None:
    assert ANIMALS.letter(response) == letter


def test_a_whole_option_wins_over_a_part() -> None:
    choices = Choices(question="Which?", options={"A": "a cat", "B": "a cat and a dog"})
    assert choices.letter("A cat and a dog.") == "B"
    assert choices.letter("Cat") == "A"


def test_letter_and_text_of_one_option_are_the_same_choice() -> None:
    assert same_choice("The cat", "B", ANIMALS)
    assert not same_choice("C", "a cat", ANIMALS)
    assert not same_choice("no idea", "none of them", ANIMALS)


def test_the_likeliest_option_by_sum_or_per_token() -> None:
    logps = [math.log(0.2), math.log(0.5) + math.log(0.3), math.log(0.1)]
    assert most_likely(logps) == 0
    assert most_likely(logps, [1, 2, 1], by="mean") == 1
    assert most_likely([-1.0, -1.0, -2.0]) is None


@pytest.mark.parametrize("logps", [[], [float("nan"), -1.0]])
def test_missing_log_probs_are_refused(logps: list[float]) -> None:
    with pytest.raises(ValueError, match="expected the log-prob of every option"):
        most_likely(logps)


def test_mean_needs_lengths() -> None:
    with pytest.raises(ValueError, match="length of 1 or more"):
        most_likely([-1.0, -2.0], [1, 0], by="mean")


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("B", Alternatives(["A", "B", "C"], "sum")),
        ("(B)", Alternatives(["(A)", "(B)", "(C)"], "sum")),
        ("B.", Alternatives(["A.", "B.", "C."], "sum")),
        ("B. a cat", Alternatives(["A", "B", "C"], "sum")),
        ("A cat", Alternatives(["a dog", "a cat", "an iguana"], "mean")),
        ("a horse", None),
    ],
)
def test_alternatives_are_written_as_the_ground_truth(answer: str, wanted: Alternatives | None) -> None:
    assert alternatives("What is it?\nA. a dog\nB. a cat\nC. an iguana", answer) == wanted
    assert alternatives("What is it?", answer) is None
