"""Finished batches of a long run, kept so that it can go on where it was killed."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from pydantic_core import to_json

from mia_augment.storage.reading import naming

_ResultT = TypeVar("_ResultT")

logger = logging.getLogger(__name__)


class Journal(Generic[_ResultT]):
    """One file per process in a folder: a line per finished batch, after a header that says which work it belongs to.

    A journal of other work is thrown away. A line that was cut off by a kill, or damaged, costs its batch, which is done again.
    """

    def __init__(self, folder: Path, work: str, kind: Any, rank: int = 0) -> None:
        """Begin the process's own file, or go on with its sound lines.

        Args:
            folder: made if it is not there; it should hold nothing else.
            work: what the results depend on, as a hash or a JSON text.
            kind: type of a batch's result, as pydantic knows it, such as ``list[Answer]``.
            rank: number of this process among those that share the work.
        """
        self._folder, self._work, self._kind = folder, work, _Finished[kind]
        self._path = folder / f"{rank}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._trim()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Callable[[int, _ResultT], None]]:
        """Open the own file; yields a function that notes (batch, result), which is on disk when it returns."""
        with naming(self._path), self._path.open("ab") as file:

            def note(batch: int, result: _ResultT) -> None:
                file.write(to_json(_Finished(batch=batch, result=result)) + b"\n")
                file.flush()
                os.fsync(file.fileno())

            yield note

    def batches(self) -> set[int]:
        """Numbers of the batches that any process has finished."""
        return {entry.batch for entry in self._entries()}

    def count(self) -> int:
        """How many batches all processes have finished, without reading their results."""
        total = 0
        for path in self._folder.glob("*.jsonl"):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # rank 0 removes what is finished
                if file.readline() == self._header():
                    total += sum(line.endswith(b"\n") for line in file)
        return total

    def results(self) -> dict[int, _ResultT]:
        """Batch -> result, of all finished batches."""
        return {entry.batch: entry.result for entry in self._entries()}

    def _entries(self) -> Iterator[_Finished[_ResultT]]:
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                if file.readline() == self._header():
                    yield from filter(None, map(self._entry, file))

    def _entry(self, line: bytes) -> _Finished[_ResultT] | None:
        """A finished batch; None where its line was cut off or damaged."""
        with contextlib.suppress(ValueError):
            return self._kind.model_validate_json(line) if line.endswith(b"\n") else None
        return None

    def _header(self) -> bytes:
        return json.dumps({"work": self._work}).encode() + b"\n"

    def _trim(self) -> None:
        """Start the own file, or remove its damaged lines and the unfinished one at its end."""
        old = self._path.read_bytes() if self._path.is_file() else b""
        header, *lines = old.splitlines(keepends=True) or [b""]
        if header != self._header():
            header, lines = self._header(), []
        sound = [line for line in lines if self._entry(line)]
        torn = bool(lines) and not old.endswith(b"\n")
        if damaged := len(lines) - len(sound) - torn:
            logger.warning("%s: %d lines of it are damaged; their batches are done again", self._path, damaged)
        whole = b"".join([header, *sound])
        if whole != old:
            with naming(self._path):
                self._path.write_bytes(whole)


class _Finished(BaseModel, Generic[_ResultT]):
    batch: int
    result: _ResultT
