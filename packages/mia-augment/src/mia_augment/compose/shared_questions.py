"""Questions about several pictures, made of one question that the rows of these pictures share, and wrong answers to them.

Comparison and search: S2H-DPO (arXiv 2604.18512), whose third level, a named picture, is every other format's. Captions: CcDPO
(arXiv 2505.22396), whose rejected answers are captions swapped, dropped and shortened.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mia_augment.compose.questions import asks_for_caption, lower_first

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)")


class SharedParts(NamedTuple):
    """The pictures of a prompt and what their own rows say to one question."""

    question: str
    labels: Sequence[str]
    answers: Sequence[str | None]
    """None: no row of that picture answers the question."""
    named: Sequence[int]
    """Which of them the prompt asks about, in their order."""
    target: int


class Built(NamedTuple):
    """A wrong answer built of right ones."""

    kind: str
    """Whose answer it is (``Image3``), or what was done (``swapped``)."""
    text: str


Wrong = Callable[[SharedParts, random.Random], Iterator[Built]]
"""Yields all wrong answers that can be built, the surest first; some may equal the right one."""


@dataclass(frozen=True)
class SharedQuestion:
    """How a question about several pictures is put and answered."""

    named: int | None
    """How many pictures it is about; None: all of them."""
    ask: Callable[[SharedParts], tuple[str, str]]
    """The pictures to (what stands behind the images, the true answer)."""


def others_answers(parts: SharedParts, rng: random.Random) -> Iterator[Built]:
    """What the other pictures' own rows answer to the question."""
    for place, answer in enumerate(parts.answers):
        if place != parts.target and answer:
            yield Built(parts.labels[place], answer)


def ask_comparison(parts: SharedParts) -> tuple[str, str]:
    """``Compare Image1 and Image3: what color is it?``, answered by a line for each."""
    names = " and ".join(parts.labels[place] for place in parts.named)
    return f"Compare {names}: {lower_first(parts.question)}", _lines(parts, parts.answers, parts.named)


def wrong_comparisons(parts: SharedParts, rng: random.Random) -> Iterator[Built]:
    """The two answers swapped; then one of them replaced by a picture's that was not named."""
    first, second = parts.named
    swapped = {first: parts.answers[second], second: parts.answers[first]}
    yield Built("swapped", _lines(parts, swapped, parts.named))
    for place, answer in enumerate(parts.answers):
        if place not in parts.named and answer:
            replaced = {**{named: parts.answers[named] for named in parts.named}, rng.choice(parts.named): answer}
            yield Built(parts.labels[place], _lines(parts, replaced, parts.named))


def ask_search(parts: SharedParts) -> tuple[str, str]:
    """``Which image shows this? ..``, or, where no caption is shared, ``Which image fits this question and answer? ..``."""
    answer = parts.answers[parts.target]
    if asks_for_caption(parts.question):
        return f"Which image shows this? {answer}", parts.labels[parts.target]
    return f"Which image fits this question and answer? {parts.question} {answer}", parts.labels[parts.target]


def wrong_searches(parts: SharedParts, rng: random.Random) -> Iterator[Built]:
    """The names of the other pictures."""
    return (Built(label, label) for place, label in enumerate(parts.labels) if place != parts.target)


def ask_captions(parts: SharedParts) -> tuple[str, str]:
    """``Describe every image in order.``, or the question put to every image; answered by a line for each."""
    asked = "Describe every image in order."
    if not asks_for_caption(parts.question):
        asked = f"For every image in order: {lower_first(parts.question)}"
    return asked, _lines(parts, parts.answers, parts.named)


def wrong_captions(parts: SharedParts, rng: random.Random) -> Iterator[Built]:
    """Two captions swapped, one dropped, all shortened."""
    said = dict(enumerate(parts.answers))
    pairs = [(i, j) for j in parts.named for i in range(j) if said[i] != said[j]]
    if pairs:
        first, second = rng.choice(pairs)
        yield Built("swapped", _lines(parts, {**said, first: said[second], second: said[first]}, parts.named))
    left_out = rng.choice(parts.named)
    yield Built("dropped", _lines(parts, said, [place for place in parts.named if place != left_out]))
    yield Built("shortened", _lines(parts, {place: shortened(text or "") for place, text in said.items()}, parts.named))


def shortened(caption: str) -> str:
    """The first sentence of a caption of several, the first half of the words of one sentence, a single word as it is.

    >>> shortened("A dog runs. It is wet."), shortened("A dog on the wet grass."), shortened("Red")
    ('A dog runs.', 'A dog on.', 'Red')
    """
    first, *rest = _SENTENCE.split(caption.strip(), maxsplit=1)
    words = first.split()
    if rest or len(words) < 2:
        return first
    mark = first[-1] if first[-1] in ".!?" else ""
    return " ".join(words[: len(words) // 2]).rstrip(".,;:!?") + mark


def _lines(parts: SharedParts, answers: Sequence[str | None] | dict[int, str | None], places: Sequence[int]) -> str:
    """``Image1: red``, a line for each of the places."""
    return "\n".join(f"{parts.labels[place]}: {answers[place]}" for place in places)
