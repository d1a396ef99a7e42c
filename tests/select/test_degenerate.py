from __future__ import annotations

import pytest
from mia_select.rules.degenerate import degenerate, is_loop

TOKENS = ["<image>", "<|image_pad|>"]


@pytest.mark.parametrize(
    "text",
    [
        "the car the car the car the car the car the car",
        "The car is red. " + "It is parked. " * 6,
        "!" * 40,
        "红色的" * 12,
        "It is red and it is red and it is red and it is red and it is",
    ],
)
def test_loops_are_found(text: str) -> None:
    assert is_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no no no no",
        "......",
        "The color is red.",
        "There is a dog and there is a cat and there is a bird and there is a fish.",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "The cars are red, the houses are red, the doors are blue, and the windows are red.",
        "A long description of the scene with many different words, then ha ha ha ha ha ha ha ha ha ha ha",
        "The man walks down the street. The man walks down the street. The man walks down the street.",
    ],
)
def test_ordinary_texts_are_no_loops(text: str) -> None:
    assert not is_loop(text)


def test_reasons() -> None:
    assert degenerate(" \n", TOKENS) == "empty"
    assert degenerate("It is <|image_pad|> red", TOKENS) == "image token <|image_pad|>"
    assert degenerate("a < b, [1]", TOKENS) is None
    assert degenerate("na " * 20, TOKENS) == "repetition loop"
