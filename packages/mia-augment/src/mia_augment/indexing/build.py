"""Building the index: all rows are read once and their pictures checked. Memory: a few numbers per row."""

from __future__ import annotations

import functools
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json, to_json

from mia_augment.contents.states import STATES, state_line
from mia_augment.errors import DataError
from mia_augment.images.sniff import PictureFolder
from mia_augment.indexing.index import (
    COUNTS,
    ROWS,
    SKIPPED,
    TURN_BITS,
    question_bytes,
    question_key,
    shared_question,
    sharing_key,
)
from mia_augment.records import Skipped
from mia_augment.rows.row import Row
from mia_augment.seeds import hash64, seed_from
from mia_augment.settings import AugmentSettings
from mia_augment.storage.files import atomic_write, write_json
from mia_augment.storage.stages import Progress

Side = Literal["all", "train", "held_out"]
U64 = NDArray[np.uint64]
_REMEMBERED_PICTURES = 4096


@dataclass(frozen=True)
class Choice:
    """Which rows of a data set are taken."""

    limit: int | None = None
    """At most this many, counted from the beginning."""
    holdout: float = 0.0
    """Share of the pictures that are held out, by a hash of their content; all rows of one picture are on one side."""
    part: Side = "all"

    def takes(self, key: int) -> bool:
        if self.part == "all":
            return True
        held_out = seed_from("held out", key.to_bytes(8, "little")) < self.holdout * 2**64
        return held_out == (self.part == "held_out")


@functools.lru_cache(1024)
def _group(source: str) -> int:
    return hash64(source.encode())


def source_set(name: str) -> str:
    """The set a picture belongs to: the first folder of its path; empty for a picture without a folder.

    >>> source_set("coco/train2017/000000033471.jpg")
    'coco'
    """
    return name.split("/", 1)[0] if "/" in name else ""


def reason_kind(reason: str) -> str:
    """The kind of a reason, under which it is counted: what stands before its first colon."""
    return reason.split(":", 1)[0]


def build_index(
    rows: Iterable[Row | Skipped],
    pictures: PictureFolder,
    settings: AugmentSettings,
    folder: Path,
    choice: Choice,
    progress: Progress | None = None,
) -> None:
    """Read all rows once, check their pictures, and write `folder` (whole or not at all)."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with (
        (temporary / ROWS).open("wb") as store,
        atomic_write(temporary / SKIPPED) as refused,
        atomic_write(temporary / STATES) as states,
    ):
        builder = _Builder(_looked_up(pictures, settings, states), settings, choice, store, refused)
        for row in rows:
            if choice.limit is not None and builder.counts["rows"] >= choice.limit:
                break
            builder.take(row)
            if progress and builder.counts["rows"] % 1000 == 0:
                progress(builder.counts["rows"], None)
        kept = builder.without_repetitions(temporary / ROWS)
    for name, values in builder.columns.arrays(kept).items():
        np.save(temporary / f"{name}.npy", values)
    write_json(temporary / COUNTS, dict(builder.counts))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


@dataclass(frozen=True, slots=True)
class _Picture:
    name: str
    """Normalised."""
    key: int
    """Content key."""
    path_hash: int
    group: int
    """Hash of the source set."""


Lookup = Callable[[str], _Picture | str]


def _looked_up(pictures: PictureFolder, settings: AugmentSettings, states: IO[str]) -> Lookup:
    """A function that finds a picture by the path in its row, or says why it can't be used; it remembers the latest.

    What it looks at it writes to `states`.
    """

    @functools.lru_cache(_REMEMBERED_PICTURES)
    def look_up(image: str) -> _Picture | str:
        try:
            name, path, status = pictures.locate(image)
        except DataError as error:
            states.write(state_line(image, None))
            return str(error)
        states.write(state_line(image, status))
        try:
            key = pictures.content_key(path, status)
        except DataError as error:
            return str(error).replace(path, repr(name))
        group = _group(source_set(name)) if settings.companions == "same_source" else 0
        return _Picture(name, key, hash64(name.encode()), group)

    return look_up


class _Builder:
    """Takes rows one by one, writes what is needed again and counts the rest."""

    def __init__(self, look_up: Lookup, settings: AugmentSettings, choice: Choice, store: IO[Any], refused: IO[Any]) -> None:
        self._look_up, self._choice, self._store, self._refused = look_up, choice, store, refused
        self._longest = settings.max_answer_chars
        self.columns, self.counts = _Columns(sharing=settings.looks_for_sharers), Counter[str]()

    def take(self, row: Row | Skipped) -> None:
        self.counts["rows"] += 1
        if isinstance(row, Skipped):
            self._skip(row.id, row.reason)
            return
        if (length := len(row.turns[0][1])) > self._longest:
            self._skip(row.id, f"long answer: {length} characters, more than max_answer_chars {self._longest}")
            return
        picture = self._look_up(row.image)
        if isinstance(picture, str):
            self._skip(row.id, picture)
        elif not self._choice.takes(picture.key):
            self.counts["other_part"] += 1
        else:
            line = to_json([row.id, picture.name]) + b"\n" + to_json(row.turns) + b"\n"
            self._store.write(line)
            self.counts.update({"several_turns": 1} if len(row.turns) > 1 else {})
            self.columns.add(row, line, picture)

    def _skip(self, row_id: str, reason: str) -> None:
        self._refused.write(Skipped(id=row_id, reason=reason).model_dump_json() + "\n")
        self.counts["skipped"] += 1
        self.counts[f"skipped/{reason_kind(reason)}"] += 1

    def without_repetitions(self, path: Path) -> NDArray[np.bool_]:
        """Which rows to keep: of rows that are the same throughout, the first; the others are skipped."""
        hashes = np.array(self.columns.row_hash, dtype=np.uint64)
        kept = np.zeros(len(hashes), dtype=np.bool_)
        kept[np.unique(hashes, return_index=True)[1]] = True
        self._store.flush()
        with path.open("rb") as file:
            for number in np.flatnonzero(~kept):
                file.seek(self.columns.start[number])
                row_id = from_json(file.readline())[0]
                self._skip(row_id, "repeated row: the same id, picture and turns as an earlier row")
        return kept


class _Columns:
    """What is known of rows and turns, a few machine words each."""

    def __init__(self, *, sharing: bool) -> None:
        """`sharing`: also note which rows ask and answer the same."""
        self._notes_sharing = sharing
        self.start = array("Q", [0])
        self.row_hash, self.id_hash = array("Q"), array("Q")
        self.key, self.path_hash, self.group = array("Q"), array("Q"), array("Q")
        self.asked, self.place = array("Q"), array("Q")
        self.sharing, self.sharing_place = array("Q"), array("Q")

    def add(self, row: Row, line: bytes, picture: _Picture) -> None:
        place = len(self.row_hash) << TURN_BITS
        self.start.append(self.start[-1] + len(line))
        self.row_hash.append(hash64(line))
        self.id_hash.append(hash64(row.id.encode()))
        self.key.append(picture.key)
        self.path_hash.append(picture.path_hash)
        self.group.append(picture.group)
        for turn, (question, answer) in enumerate(row.turns):
            self.asked.append(question_key(picture.key, question_bytes(question)))
            self.place.append(place + turn)
            if self._notes_sharing and answer:
                self.sharing.append(sharing_key(picture.group, shared_question(question)))
                self.sharing_place.append(place + turn)

    def arrays(self, kept: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """The columns sorted for looking up: nothing in them depends on the order of the rows but their numbers."""
        names = (
            *("start", "row_hash", "id_hash", "key", "path_hash", "group"),
            *("asked", "place", "sharing", "sharing_place"),
        )
        column = {name: np.frombuffer(getattr(self, name), dtype=np.uint64) for name in names}
        key, group, row_hash = column["key"], column["group"], column["row_hash"]
        _, inverse, count = np.unique(np.where(kept, column["id_hash"], row_hash), return_inverse=True, return_counts=True)
        by_picture = np.lexsort((row_hash, column["path_hash"], key, group))
        by_picture = by_picture[kept[by_picture]]
        first = np.ones(len(by_picture), dtype=np.bool_)
        first[1:] = (np.diff(key[by_picture]) != 0) | (np.diff(group[by_picture]) != 0)
        pool = by_picture[first]
        by_question = _sorted_questions(column["asked"], column["place"], row_hash, kept)
        by_sharing = _sorted_questions(column["sharing"], column["sharing_place"], row_hash, kept)
        return {
            "rows": np.flatnonzero(kept).astype(np.uint64),
            "start": column["start"],
            "repeated": (count[inverse] > 1) & kept,
            "row_hash": row_hash,
            "key": key,
            "group": group,
            "pool": pool.astype(np.uint64),
            "pool_key": key[pool],
            "pool_group": group[pool],
            "asked": column["asked"][by_question],
            "asked_place": column["place"][by_question],
            "sharing": column["sharing"][by_sharing],
            "sharing_place": column["sharing_place"][by_sharing],
        }


def _sorted_questions(asked: U64, place: U64, row_hash: U64, kept: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Order of the turns of kept rows by question key; equal ones in an order that does not depend on the rows'."""
    row = (place >> np.uint64(TURN_BITS)).astype(np.intp)
    order = np.lexsort((place, row_hash[row], asked))
    return order[kept[row[order]]]
