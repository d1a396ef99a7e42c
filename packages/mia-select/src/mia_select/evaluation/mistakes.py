"""What kind of mistake a wrong answer is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mia_augment import normalize_answer

from mia_select.evaluation.speaking import Named
from mia_select.rules.degenerate import degenerate
from mia_select.settings import SelectSettings

Mistake = Literal["other_image", "mixed", "malformed", "neither", "else"]
MISTAKES: tuple[Mistake, ...] = ("other_image", "mixed", "malformed", "neither", "else")

_IMAGE_TOKENS = SelectSettings().image_tokens


def mistake(response: str, answer: str, others: Sequence[str], about: Named | None = None) -> Mistake | None:
    """The kind of mistake, None for a right answer.

    - `other_image`: it is another picture's answer to the same question (sequence confusion);
    - `malformed`: empty, a loop, or without the words with which all known answers begin and end, or without any between them;
    - `mixed`: its telling words come from several pictures' answers (element interference);
    - `neither`: it speaks of none of the pictures, which likelihoods alone can tell;
    - `else`: any other wrong answer.

    Where it is known by its likelihood under each picture alone what an answer speaks of, that decides, unless it is another
    picture's answer word for word, or broken: free-form answers have no words in common.

    Args:
        response: what the model said.
        answer: the ground truth.
        others: the other pictures' answers to this very question, as far as they are known; without them only `malformed`
            (in its narrow sense) and `else` can be told apart.
        about: what it speaks of, by likelihood; None: not measured.

    >>> mistake("The color is blue.", "The color is red.", ["The color is blue."])
    'other_image'
    >>> mistake("a red square", "a red circle", ["a blue square"])
    'mixed'
    """
    said, right = normalize_answer(response), normalize_answer(answer)
    if said == right:
        return None
    wrong = {normalize_answer(other) for other in others} - {right}
    if said in wrong:
        return "other_image"
    if degenerate(response, _IMAGE_TOKENS):
        return "malformed"
    if about is not None:
        return "else" if about == "target" else about
    words = said.split()
    known = [right.split(), *(other.split() for other in sorted(wrong))]
    if len(known) > 1 and not _has_frame(words, known):
        return "malformed"
    return "mixed" if _is_mixed(set(words), [set(answer_words) for answer_words in known]) else "else"


def _has_frame(words: list[str], known: list[list[str]]) -> bool:
    """Whether the words begin and end as all known answers do, with something between."""
    before = _common(known)
    after = _common([answer[len(before) :][::-1] for answer in known])
    between = len(words) - len(before) - len(after)
    needed = 1 if all(len(answer) > len(before) + len(after) for answer in known) else 0
    return (
        between >= needed
        and words[: len(before)] == known[0][: len(before)]
        and words[len(words) - len(after) :][::-1] == after
    )


def _common(lists: list[list[str]]) -> list[str]:
    """The longest beginning that all share."""
    length = 0
    for words in zip(*lists, strict=False):
        if len(set(words)) > 1:
            break
        length += 1
    return lists[0][:length]


def _is_mixed(said: set[str], known: list[set[str]]) -> bool:
    """Whether the words that any answer holds come from several answers: no single one holds them all."""
    telling = said & set().union(*known)
    return not any(telling <= answer for answer in known)
