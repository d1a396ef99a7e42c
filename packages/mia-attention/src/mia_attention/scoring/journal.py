"""Finished batches of a long run, kept so that it can go on where it was killed."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from mia_augment import DataError
from mia_augment.storage import naming
from pydantic import BaseModel
from pydantic_core import from_json

logger = logging.getLogger(__name__)

Line = tuple[int, str, str]
"""Index of the input record, kind of the result, and its JSON."""


class Journal:
    """One file per process in a folder: a line per finished batch, after a header that says which work it belongs to.

    A journal of other work is thrown away; a line that was cut off by a kill is dropped and its batch done again.
    """

    def __init__(self, folder: Path, work: str, rank: int = 0) -> None:
        self._folder = folder
        self._work = work
        self._path = folder / f"{rank}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._trim()

    @contextlib.contextmanager
    def writing(self) -> Iterator[IO[str]]:
        """The own file, open for `append`."""
        with naming(self._path), self._path.open("a", encoding="utf-8", newline="\n") as file:
            yield file

    @staticmethod
    def append(file: IO[str], batch: int, lines: Sequence[Line]) -> None:
        """Note a finished batch; it is on disk when this returns."""
        file.write(json.dumps({"batch": batch, "lines": lines}, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())

    def batches(self) -> set[int]:
        """Numbers of the batches that any process has finished."""
        return {entry["batch"] for entry in self._entries()}

    def count(self) -> int:
        """How many batches all processes have finished, without reading their results."""
        total = 0
        for path in self._folder.glob("*.jsonl"):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # rank 0 removes what is finished
                if file.readline() == self._header().encode():
                    total += sum(line.endswith(b"\n") for line in file)
        return total

    def lines(self) -> dict[int, Line]:
        """Results of all finished batches by input index."""
        return {line[0]: (line[0], line[1], line[2]) for entry in self._entries() for line in entry["lines"]}

    def _entries(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                if file.readline() != self._header().encode():
                    continue
                for line in file:
                    if entry := _entry(line):
                        yield entry

    def _header(self) -> str:
        return json.dumps({"work": self._work}) + "\n"

    def _trim(self) -> None:
        """Start the own file, or cut off what a kill left unfinished at its end, and what is damaged."""
        old = self._path.read_bytes() if self._path.is_file() else b""
        header, *lines = old.splitlines(keepends=True) or [b""]
        if header != self._header().encode():
            header, lines = self._header().encode(), []
        sound = [line for line in lines if _entry(line)]
        torn = bool(lines) and not old.endswith(b"\n")
        if damaged := len(lines) - len(sound) - torn:
            logger.warning("%s: %d lines of it are damaged; their batches are done again", self._path, damaged)
        whole = b"".join([header, *sound])
        if whole != old:
            with naming(self._path):
                self._path.write_bytes(whole)


def _entry(line: bytes) -> dict[str, Any] | None:
    """A finished batch; None where its line was cut off or damaged."""
    try:
        entry = _Finished.model_validate_json(line) if line.endswith(b"\n") else None
        for _, _, text in entry.lines if entry else ():
            from_json(text)
    except ValueError:
        return None
    return entry.model_dump() if entry else None


class _Finished(BaseModel):
    batch: int
    lines: list[Line]


def check_complete(lines: dict[int, Line], count: int, folder: Path) -> None:
    """Raise DataError unless every input record has a result."""
    missing = next((index for index in range(count) if index not in lines), None)
    if missing is not None:
        raise DataError(
            f"internal: input record {missing} of {count} has no result in {folder}; delete that folder, which holds "
            "unfinished work only, and run the stage again"
        )
