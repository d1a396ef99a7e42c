"""Putting the finished chunks of samples together, in their order."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mia_augment.errors import DataError
from mia_augment.indexing.build import reason_kind
from mia_augment.records import Skipped
from mia_augment.rows.pictures_in_rows import EMBEDDED
from mia_augment.storage.files import atomic_write
from mia_augment.workers.worker import SAMPLES, SCRATCH, SKIPPED, Job


def merge(job: Job, chunks: Iterable[Path], folder: Path, *, refused: bool) -> None:
    """Write the samples and the skipped rows of chunks into a folder.

    Args:
        refused: the rows that were skipped while they were read come first.
    """
    with atomic_write(folder / SAMPLES) as samples, atomic_write(folder / SKIPPED) as skipped:
        if refused:
            skipped.writelines(_skipped_while_reading(job))
        for path in chunks:
            with path.open(encoding="utf-8", newline="\n") as file:
                for line in file:
                    if line[0] != "=":
                        (samples if line[0] == "+" else skipped).write(line[1:])


def all_chunks(job: Job) -> list[Path]:
    """The files of all chunks that are there, in their order."""
    return sorted((job.scratch / "chunks").glob("*.jsonl"))


def check_made(job: Job, counts: Mapping[str, int], source: Path) -> None:
    """Raise DataError where not one sample was made, with the reasons; what was begun is removed then."""
    if counts["samples"]:
        return
    reasons = "; ".join(_examples(job)) or "it has no rows"
    for name in (SCRATCH, EMBEDDED):
        shutil.rmtree(job.out / name, ignore_errors=True)
    unlabelled = "no answer" in reasons
    hint = "; rows without answers are taken with `augment.unlabelled: true` (`--unlabelled`)" if unlabelled else ""
    raise DataError(f"{source}: not one sample could be made of {counts['rows']} rows: {reasons}{hint}")


def _skipped_while_reading(job: Job) -> Iterator[str]:
    with (job.scratch / "index" / "skipped.jsonl").open(encoding="utf-8", newline="\n") as file:
        yield from file


def _examples(job: Job) -> list[str]:
    """The first row skipped for each kind of reason."""
    first: dict[str, str] = {}
    lines: list[Any] = list(_skipped_while_reading(job))
    for path in all_chunks(job):
        lines += [line[1:] for line in path.read_text(encoding="utf-8").splitlines() if line[0] == "-"]
    for line in lines:
        skipped = Skipped.model_validate_json(line)
        first.setdefault(reason_kind(skipped.reason), f"row {skipped.id}: {skipped.reason}")
    return list(first.values())[:4]
