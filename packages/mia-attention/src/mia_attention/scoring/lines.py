"""What the journal of a run keeps of every scored batch: a line for each of its samples, as the stage's files take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from mia_augment import DataError
from pydantic import AfterValidator
from pydantic_core import from_json


def _json(text: str) -> str:
    from_json(text)
    return text


Line = tuple[int, str, Annotated[str, AfterValidator(_json)]]
"""Index of the sample, name of the file it goes to, and its JSON."""


def lines_by_sample(batches: Mapping[int, Sequence[Line]], count: int, folder: Path) -> dict[int, Line]:
    """The lines of all batches by the index of their sample.

    Raises:
        DataError: one of `count` samples has none; `folder` is where the journal lies.
    """
    lines = {line[0]: line for batch in batches.values() for line in batch}
    missing = next((index for index in range(count) if index not in lines), None)
    if missing is not None:
        raise DataError(
            f"internal: sample {missing} of {count} has no result in {folder}; delete that folder, which holds "
            "unfinished work only, and run the stage again"
        )
    return lines
