"""The answer of a row that has a question and an answer beside it, and the several forms in which data sets give it."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mia_augment.compose.questions import normal
from mia_augment.errors import DataError
from mia_augment.images.picture_values import excerpt, is_empty, parsed_list

ANSWER_KEYS = (
    *("answer", "multiple_choice_answer", "gt", "response", "output", "completion", "caption", "text", "label"),
    *("answers", "direct_answers", "correct_choice_idx"),
)
_LISTS = ("answers", "direct_answers")
_OPTION_KEYS = ("choices", "options")


def answer_of(row: Mapping[str, Any]) -> Any:
    """The answer to a row's one question: of several answers the most frequent.

    Raises:
        DataError: several answers are given as a text that is no list.

    >>> answer_of({"answers": [{"answer": "red"}, {"answer": "dark red"}, {"answer": "Red"}]})
    'red'
    """
    key = next((key for key in ANSWER_KEYS if not is_empty(row.get(key))), None)
    given = row[key] if key else None
    if key in _LISTS:
        given = parsed_list(given)
        if isinstance(given, str) and given.startswith("["):
            raise DataError(f"bad row: expected a list as {key}, as JSON or Python writes it, got {excerpt(given)}")
    if not isinstance(given, Sequence) or isinstance(given, str):
        return given
    answers = [one["answer"] if isinstance(one, Mapping) and "answer" in one else one for one in given]
    answers = [answer for answer in answers if not is_empty(answer)]
    plain = all(isinstance(answer, str | int | float) for answer in answers)
    return _most_given(answers) if plain else given


def _most_given(answers: Sequence[Any]) -> Any:
    """The most frequent, but for case and spacing; of equally frequent ones the first; None of none."""
    count = Counter(normal(str(answer)) for answer in answers)
    return max(answers, key=lambda answer: count[normal(str(answer))], default=None)


def with_options(row: Mapping[str, Any], question: Any, answer: Any) -> tuple[Any, Any]:
    """Question and answer of a row with options beside it, of which the answer names one by its letter or its place from 0.

    The options are added to the question, a line each (``A. red``), unless it holds them, and the answer becomes the letter.
    Where the answer is a text of its own, or there are no options, both stay as they are.

    Raises:
        DataError: no option has that place or letter, or it may be a place as well as an option.
    """
    options = _options(row)
    if not options or not isinstance(question, str) or isinstance(answer, bool) or not isinstance(answer, int | float | str):
        return question, answer
    texts, given = [str(option).strip() for option in options], str(answer).strip()
    letters = string.ascii_uppercase[: len(texts)]
    if given.isdecimal() and not isinstance(answer, str):
        if given in texts:
            raise DataError(f"bad row: answer {given} may be the place of an option or the option itself: {excerpt(texts)}")
        if int(given) >= len(texts):
            raise DataError(f"bad row: expected the place of an option, 0 to {len(texts) - 1}, as answer, got {given}")
        given = letters[int(given)]
    elif given.strip("().") not in tuple(letters):
        if len(given.strip("().")) == 1 and given.strip("().") in string.ascii_uppercase and given not in texts:
            raise DataError(f"bad row: expected one of the letters {letters} as answer, got {given!r}")
        return question, answer
    if all(text in question for text in texts):
        return question, given
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True))
    return f"{question.rstrip()}\n{listed}", given.strip("().")


def _options(row: Mapping[str, Any]) -> list[Any]:
    """The options of a row: a list of them, or columns A, B, C, .."""
    given = parsed_list(next((row[key] for key in _OPTION_KEYS if not is_empty(row.get(key))), None))
    if isinstance(given, Sequence) and not isinstance(given, str):
        return list(given) if len(given) <= 26 and all(isinstance(one, str | int | float) for one in given) else []
    columns = [row.get(letter) for letter in string.ascii_uppercase]
    number = next((place for place, cell in enumerate(columns) if is_empty(cell)), len(columns))
    return columns[:number] if number > 1 else []
