"""The other pictures of a sample: of the same source set, all different, and none that would give the same answer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import NamedTuple

from mia_augment.indexing.index import Index, StoredRow, question_bytes, shared_question
from mia_augment.text import same_answer

_DRAWS = 64


class Part(NamedTuple):
    """A picture that takes part in a sample."""

    id: str
    path: str
    answer: str | None
    """What its own row answers to the question of the sample; None: no row asks it."""


class TooFew(Exception):
    """A sample needs more companions than there are; the number of those found, and whether they should share its question."""

    def __init__(self, found: int, *, sharing: bool = False) -> None:
        super().__init__(found)
        self.found, self.sharing = found, sharing


def companions(index: Index, number: int, row: StoredRow, rng: Random, *, turn: int = 0, sharing: int = 0) -> Iterator[Part]:
    """Yield pictures of the row's source set in random order.

    No picture comes twice, under whatever name, nor the row's own; and none whose own row has the same question and the same
    answer, since then nothing would tell whether a model looked at the right one. Of rows without answers that is not known.

    Args:
        turn: which question of the row is asked.
        sharing: the first so many come from rows that ask that question, too.

    Raises:
        TooFew: asked for more than there are.
    """
    question, answer = question_bytes(row.turns[turn][0]), row.turns[turn][1]
    used = {index.key[number]}
    if sharing:
        yield from islice(_sharers(index, number, row.turns[turn], used, rng), sharing)
        if len(used) <= sharing:
            raise TooFew(len(used) - 1, sharing=True)
    for place in _shuffled(index.pool(number), rng):
        companion, key = index.pooled(place)
        if key in used:
            continue
        answers = list(index.answers(key, question))
        if answer and any(same_answer(other, answer) for other in answers):
            continue
        used.add(key)
        row_id, path = index.name(companion)
        yield Part(row_id, path, next(filter(None, answers), None))
    raise TooFew(len(used) - 1)


def sharing_turns(index: Index, number: int, row: StoredRow, pictures: int) -> list[int]:
    """The turns of a row that have an answer and whose question so many rows ask, its own among them."""
    return [
        turn
        for turn, (question, answer) in enumerate(row.turns)
        if answer and len(index.sharing(number, shared_question(question))) >= pictures
    ]


def _sharers(index: Index, number: int, turn: list[str], used: set[int], rng: Random) -> Iterator[Part]:
    """Pictures whose rows ask the question and answer it otherwise, in random order; those that come are noted in `used`."""
    question, answer = turn
    for place in _shuffled(index.sharing(number, shared_question(question)), rng):
        other, asked = index.asking(place)
        if (key := index.key[other]) in used:
            continue
        sharer = index.row(other)
        said = sharer.turns[asked][1]
        if any(same_answer(text, answer) for text in (said, *index.answers(key, question_bytes(question)))):
            continue
        used.add(key)
        yield Part(sharer.id, sharer.image, said)


def _shuffled(places: range, rng: Random) -> Iterator[int]:
    """All places in random order, without holding them: some draws first, then, should they not suffice, a walk over all."""
    size, seen = len(places), set[int]()
    for _ in range(_DRAWS if size else 0):
        place = int(rng.random() * size)
        if place not in seen:
            seen.add(place)
            yield places[place]
    start = int(rng.random() * size)
    for step in range(size):
        place = (start + step) % size
        if place not in seen:
            yield places[place]
