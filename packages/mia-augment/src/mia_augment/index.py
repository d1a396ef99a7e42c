"""An index of all rows on disk: which pictures there are, and which rows ask the same. Its memory is a few numbers per row."""

from __future__ import annotations

import functools
import json
import mmap
import shutil
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mia_augment.errors import DataError
from mia_augment.files import atomic_write, write_json
from mia_augment.probe import PictureFolder, hash64
from mia_augment.questions import normal
from mia_augment.records import Skipped
from mia_augment.rows import Row
from mia_augment.settings import AugmentSettings

Part = Literal["all", "train", "held_out"]
U64 = NDArray[np.uint64]
_REMEMBERED_PICTURES = 4096


@dataclass(frozen=True)
class Choice:
    """Which rows of a data set are taken."""

    limit: int | None = None
    """At most this many, counted from the beginning."""
    holdout: float = 0.0
    """Share of the pictures that are held out, by a hash of their content; all rows of one picture are on one side."""
    part: Part = "all"

    def takes(self, key: int) -> bool:
        if self.part == "all":
            return True
        held_out = hash64(b"held out", key.to_bytes(8, "little")) < self.holdout * 2**64
        return held_out == (self.part == "held_out")


class _Columns:
    """What is collected while rows are read; a few machine words per row and turn."""

    def __init__(self) -> None:
        self.offset, self.row_hash, self.id_hash = array("Q"), array("Q"), array("Q")
        self.key, self.path_hash, self.group = array("Q"), array("Q"), array("Q")
        self.asked, self.answered, self.asked_row, self.asked_turn = array("Q"), array("Q"), array("Q"), array("Q")

    def add(self, row: Row, line: bytes, offset: int, key: int, same_source: bool) -> None:
        number = len(self.offset)
        self.offset.append(offset)
        self.row_hash.append(hash64(line))
        self.id_hash.append(hash64(row.id.encode()))
        self.key.append(key)
        self.path_hash.append(hash64(row.image.encode()))
        self.group.append(hash64(source_set(row.image).encode()) if same_source else 0)
        for turn, (question, answer) in enumerate(row.turns):
            self.asked.append(question_key(key, question))
            self.answered.append(answer_hash(answer))
            self.asked_row.append(number)
            self.asked_turn.append(turn)


def source_set(name: str) -> str:
    """The set a picture belongs to: the first folder of its path; empty for a picture without a folder.

    >>> source_set("coco/train2017/000000033471.jpg")
    'coco'
    """
    return name.split("/", 1)[0] if "/" in name else ""


def question_key(key: int, question: str) -> int:
    """Hash of a picture and a question about it."""
    return hash64(key.to_bytes(8, "little"), normal(question).encode())


def answer_hash(answer: str) -> int:
    return hash64(normal(answer).encode())


def build_index(
    rows: Iterable[Row | Skipped],
    pictures: PictureFolder,
    settings: AugmentSettings,
    folder: Path,
    choice: Choice,
    progress: Callable[[int, int | None], None] | None = None,
) -> None:
    """Read all rows once, check their pictures, and write `folder` (whole or not at all)."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    columns, counts = _Columns(), Counter[str]()
    with (temporary / "rows.jsonl").open("wb") as store, atomic_write(temporary / "skipped.jsonl") as refused:

        def skip(row_id: str, reason: str) -> None:
            refused.write(Skipped(id=row_id, reason=reason).model_dump_json() + "\n")
            counts["skipped"] += 1
            counts[f"skipped/{kind_of(reason)}"] += 1

        _collect(rows, pictures, settings, choice, columns, store, skip, counts, progress)
        kept = _without_repetitions(columns, temporary / "rows.jsonl", store, skip)
    _write_arrays(columns, kept, temporary)
    write_json(temporary / "counts.json", dict(counts))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def kind_of(reason: str) -> str:
    """The kind of a reason, under which it is counted: what stands before its first colon."""
    return reason.split(":", 1)[0]


def _collect(
    rows: Iterable[Row | Skipped],
    pictures: PictureFolder,
    settings: AugmentSettings,
    choice: Choice,
    columns: _Columns,
    store: Any,
    skip: Callable[[str, str], None],
    counts: Counter[str],
    progress: Callable[[int, int | None], None] | None,
) -> None:
    offset, same_source = 0, settings.companions == "same_source"
    content_key = _remembering(pictures)
    for row in rows:
        if choice.limit is not None and counts["rows"] >= choice.limit:
            break
        counts["rows"] += 1
        if progress and counts["rows"] % 1000 == 0:
            progress(counts["rows"], None)
        if isinstance(row, Skipped):
            skip(row.id, row.reason)
            continue
        if len(row.turns[0][1]) > settings.max_answer_chars:
            skip(
                row.id,
                f"long answer: {len(row.turns[0][1])} characters, more than max_answer_chars {settings.max_answer_chars}",
            )
            continue
        name, key = content_key(row.image)
        if isinstance(key, str):
            skip(row.id, key)
        elif not choice.takes(key):
            counts["other_part"] += 1
        else:
            row = row if name == row.image else row.model_copy(update={"image": name})
            line = json.dumps([row.id, name, row.turns], ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            store.write(line)
            columns.add(row, line, offset, key, same_source)
            offset += len(line)
    columns.offset.append(offset)


def _remembering(pictures: PictureFolder) -> Callable[[str], tuple[str, int | str]]:
    """(normalised name, content key or why it has none) of a picture; the latest few are remembered."""

    @functools.lru_cache(_REMEMBERED_PICTURES)
    def content_key(image: str) -> tuple[str, int | str]:
        try:
            name, path = pictures.locate(image)
            return name, pictures.content_key(path)
        except DataError as error:
            return image, str(error)

    return content_key


def _without_repetitions(columns: _Columns, path: Path, store: Any, skip: Callable[[str, str], None]) -> NDArray[np.bool_]:
    """Which rows to keep: of rows that are the same throughout, the first."""
    hashes = np.frombuffer(columns.row_hash, dtype=np.uint64)
    kept = np.zeros(len(hashes), dtype=np.bool_)
    kept[np.unique(hashes, return_index=True)[1]] = True
    store.flush()
    with path.open("rb") as file:
        for number in np.flatnonzero(~kept):
            file.seek(columns.offset[number])
            skip(json.loads(file.readline())[0], "repeated row: the same id, picture and turns as an earlier row")
    return kept


def _write_arrays(columns: _Columns, kept: NDArray[np.bool_], folder: Path) -> None:
    def column(values: array[int]) -> U64:
        return np.array(values, dtype=np.uint64)

    offset = column(columns.offset)
    group, key, path_hash = column(columns.group), column(columns.key), column(columns.path_hash)
    id_hash, row_hash = column(columns.id_hash), column(columns.row_hash)
    _, inverse, count = np.unique(np.where(kept, id_hash, row_hash), return_inverse=True, return_counts=True)
    arrays = {
        "rows": np.flatnonzero(kept).astype(np.uint64),
        "start": offset,
        "repeated": (count[inverse] > 1) & kept,
        "row_hash": row_hash,
        "key": key,
        "group": group,
    }
    order = np.lexsort((row_hash, path_hash, key, group))
    order = order[kept[order]]
    changes = (np.diff(key[order], prepend=0) != 0) | (np.diff(group[order], prepend=0) != 0)
    if len(changes):
        changes[0] = True
    pool = order[changes]
    arrays |= {"pool": pool.astype(np.uint64), "pool_key": key[pool], "pool_group": group[pool]}
    asked, answered, asked_row = column(columns.asked), column(columns.answered), column(columns.asked_row)
    order = np.lexsort((row_hash[asked_row], answered, asked))
    order = order[kept[asked_row[order]]]
    place = asked_row[order] * np.uint64(1 << 16) + column(columns.asked_turn)[order]
    arrays |= {"asked": asked[order], "answered": answered[order], "asked_place": place}
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)


class Index:
    """What `build_index` wrote, read through memory maps."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "rows.jsonl").open("rb")
        size = (folder / "rows.jsonl").stat().st_size
        self._text: mmap.mmap | bytes = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        self.counts: dict[str, int] = json.loads((folder / "counts.json").read_text(encoding="utf-8"))

        def numbers(name: str) -> Sequence[int]:
            return memoryview(np.load(folder / f"{name}.npy", mmap_mode="r"))

        self.rows, self._start, self._repeated = numbers("rows"), numbers("start"), numbers("repeated")
        """`rows`: numbers of the rows of which samples can be made."""
        self.row_hash, self.key, self.group = numbers("row_hash"), numbers("key"), numbers("group")
        self._pool, self._pool_key, self._pool_group = numbers("pool"), numbers("pool_key"), numbers("pool_group")
        self._asked, self._answered, self._asked_place = numbers("asked"), numbers("answered"), numbers("asked_place")

    def row(self, number: int) -> Row:
        """A row, under an id of its own: where an id is repeated, a hash of the row is added to it."""
        row_id, image, turns = json.loads(self._text[self._start[number] : self._start[number + 1]])
        if self._repeated[number]:
            row_id = f"{row_id}-{self.row_hash[number]:016x}"
        return Row.model_construct(id=row_id, image=image, turns=turns)

    def pool(self, number: int) -> range:
        """Places in the pool that hold the pictures of this row's source set, one place per different picture."""
        group = self.group[number]
        return range(bisect_left(self._pool_group, group), bisect_right(self._pool_group, group))

    def pooled(self, place: int) -> tuple[int, int]:
        """(row, content key) at a place of the pool."""
        return self._pool[place], self._pool_key[place]

    def answers(self, key: int, question: str) -> Iterator[tuple[int, int, int]]:
        """(answer hash, row, turn) of every turn that asks this question about a picture."""
        wanted = question_key(key, question)
        place = bisect_left(self._asked, wanted)
        while place < len(self._asked) and self._asked[place] == wanted:
            row, turn = divmod(self._asked_place[place], 1 << 16)
            yield self._answered[place], row, turn
            place += 1
