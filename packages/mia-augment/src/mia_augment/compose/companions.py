"""The other pictures of a sample: of the same source set, all different, and none that would give the same answer."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from mia_augment.indexing.index import Index, StoredRow, question_bytes
from mia_augment.text import same_answer

_DRAWS = 64


class Part(NamedTuple):
    """A picture that takes part in a sample."""

    id: str
    path: str
    answer: str | None
    """What its own row answers to the question of the sample; None: no row asks it."""


class TooFew(Exception):
    """A sample needs more companions than there are; the number of those found."""

    def __init__(self, found: int) -> None:
        super().__init__(found)
        self.found = found


def companions(index: Index, number: int, row: StoredRow, rng: Random) -> Iterator[Part]:
    """Yield pictures of the row's source set in random order.

    No picture comes twice, under whatever name, nor the row's own; and none whose own row has the same question and the same
    answer, since then nothing would tell whether a model looked at the right one. Of rows without answers that is not known.

    Raises:
        TooFew: asked for more than there are.
    """
    question, answer = question_bytes(row.turns[0][0]), row.turns[0][1]
    used = {index.key[number]}
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
