"""The index of all rows: which pictures there are, and which rows ask the same. It lies on disk."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic_core import from_json

from mia_augment.compose.questions import asks_for_caption, normal
from mia_augment.images.sniff import read_at
from mia_augment.seeds import hash64

ROWS, SKIPPED, COUNTS = "rows.jsonl", "skipped.jsonl", "counts.json"
_HEAD = 512
"""Bytes in which id and path of nearly every row stand."""
TURN_BITS = 16
"""A place in a conversation is one number: row << TURN_BITS | turn."""


class StoredRow(NamedTuple):
    """A row as the index gives it, under an id of its own."""

    id: str
    image: str
    turns: list[list[str]]


def question_key(key: int, question: bytes) -> int:
    """Hash of a picture and a question about it, the question as `question_bytes` gives it."""
    return hash64(key.to_bytes(8, "little"), question)


def question_bytes(question: str) -> bytes:
    return normal(question).encode()


def shared_question(question: str) -> bytes:
    """The part that questions share if they can be put to several pictures at once: all ask for a caption, or all the same."""
    return b"\0caption" if asks_for_caption(question) else question_bytes(question)


def sharing_key(group: int, question: bytes) -> int:
    """Hash of a source set and a question, the question as `shared_question` gives it."""
    return hash64(group.to_bytes(8, "little"), question)


class Index:
    """What `mia_augment.indexing.build.build_index` wrote."""

    def __init__(self, folder: Path) -> None:
        self._file = FileIO(folder / ROWS)
        self.counts: dict[str, int] = json.loads((folder / COUNTS).read_text(encoding="utf-8"))

        def numbers(name: str) -> Sequence[int]:
            return memoryview(np.load(folder / f"{name}.npy", mmap_mode="r"))

        self.rows, self._start, self._repeated = numbers("rows"), numbers("start"), numbers("repeated")
        """`rows`: numbers of the rows of which samples can be made."""
        self.row_hash, self.key, self._group = numbers("row_hash"), numbers("key"), numbers("group")
        self._pool, self._pool_key, self._pool_group = numbers("pool"), numbers("pool_key"), numbers("pool_group")
        self._asked, self._asked_place = numbers("asked"), numbers("asked_place")
        self._sharing, self._sharing_place = numbers("sharing"), numbers("sharing_place")
        self._pools: dict[int, range] = {}

    def close(self) -> None:
        self._file.close()

    def row(self, number: int) -> StoredRow:
        """A row; where its id is repeated in the data, a hash of the row is added to it."""
        head, turns = self._text(number).split(b"\n", 1)
        row_id, image = from_json(head)
        return StoredRow(self._own_id(number, row_id), image, from_json(turns))

    def name(self, number: int) -> tuple[str, str]:
        """(id, path of the picture) of a row."""
        head, *rest = self._text(number, _HEAD).split(b"\n", 1)
        row_id, image = from_json(head if rest else self._text(number).split(b"\n", 1)[0])
        return self._own_id(number, row_id), image

    def _text(self, number: int, most: int | None = None) -> bytes:
        """The text of a row, or its beginning; read, not mapped, so that a large file does not fill the memory."""
        start, end = self._start[number], self._start[number + 1]
        return read_at(self._file.fileno(), start, end - start if most is None else min(end - start, most))

    def _own_id(self, number: int, row_id: str) -> str:
        return f"{row_id}-{self.row_hash[number]:016x}" if self._repeated[number] else row_id

    def pool(self, number: int) -> range:
        """Places in the pool that hold the pictures of this row's source set, one place for each distinct picture."""
        group = self._group[number]
        pool = self._pools.get(group)
        if pool is None:
            pool = self._pools[group] = range(bisect_left(self._pool_group, group), bisect_right(self._pool_group, group))
        return pool

    def pooled(self, place: int) -> tuple[int, int]:
        """(row, content key) at a place of the pool."""
        return self._pool[place], self._pool_key[place]

    def sharing(self, number: int, question: bytes) -> range:
        """Places of all rows of this row's source set that ask and answer a question, as `shared_question` gives it."""
        wanted = sharing_key(self._group[number], question)
        return range(bisect_left(self._sharing, wanted), bisect_right(self._sharing, wanted))

    def asking(self, place: int) -> tuple[int, int]:
        """(row, turn) at a place that `sharing` gave."""
        found = self._sharing_place[place]
        return found >> TURN_BITS, found & (1 << TURN_BITS) - 1

    def rows_sharing(self, pictures: int) -> int:
        """How many rows ask a question that rows of so many different pictures ask, each with an answer."""
        asked = np.asarray(self._sharing)
        row = np.asarray(self._sharing_place) >> np.uint64(TURN_BITS)
        _, asked_number = np.unique(asked, return_inverse=True)
        both = np.unique(np.stack([asked_number.astype(np.uint64), np.asarray(self.key)[row.astype(np.intp)]]), axis=1)
        enough = np.flatnonzero(np.bincount(both[0].astype(np.intp)) >= pictures)
        return len(np.unique(row[np.isin(asked_number, enough)]))

    def answers(self, key: int, question: bytes) -> Iterator[str]:
        """What the rows of a picture answer to a question, in an order that does not depend on theirs."""
        wanted = question_key(key, question)
        found = bisect_left(self._asked, wanted)
        while found < len(self._asked) and self._asked[found] == wanted:
            place = self._asked_place[found]
            yield self.row(place >> TURN_BITS).turns[place & (1 << TURN_BITS) - 1][1]
            found += 1
