"""Repeated ids: data in the wild has them, and whatever is kept by id would be merged without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import TypeVar

from mia_augment.errors import DataError
from mia_augment.records import PreferencePair, Sample

_RecordT = TypeVar("_RecordT", Sample, PreferencePair)


def check_unique(ids: Iterable[str], where: str) -> None:
    """Raise DataError if an id comes more than once.

    Args:
        where: what the ids stand in, such as a file.
    """
    repeated = [record_id for record_id, count in Counter(ids).items() if count > 1]
    if repeated:
        raise DataError(
            f"{where}: expected unique ids, got {repeated[0]!r} more than once ({len(repeated)} such ids); what is found out "
            "about one would be taken for the others, so give each its own id"
        )


def with_unique_ids(records: Sequence[_RecordT]) -> tuple[list[_RecordT], int]:
    """The records with repeated ids renamed, the first of each kept as it is; and how many were renamed.

    The same records always get the same ids.
    """
    taken = {record.id for record in records}
    seen: set[str] = set()
    numbers: Counter[str] = Counter()
    renamed, count = [], 0
    for record in records:
        name = record.id
        if name in seen:
            name = free_id(record.id, taken, numbers)
            taken.add(name)
            record, count = record.model_copy(update={"id": name}), count + 1
        seen.add(name)
        renamed.append(record)
    return renamed, count


def free_id(repeated: str, taken: Container[str], numbers: Counter[str]) -> str:
    """The id with ``#2``, ``#3`` .. after it, whichever is not taken; `numbers` remembers how far that was."""
    while True:
        numbers[repeated] += 1
        name = f"{repeated}#{numbers[repeated] + 1}"
        if name not in taken:
            return name
