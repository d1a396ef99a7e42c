"""Answers from a file: JSONL of `id` and `response`. Importing this needs no torch."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mia_augment import DataError, check_unique
from mia_augment.storage import read_jsonl
from pydantic import BaseModel, ConfigDict

from mia_attention.given.said import Said

if TYPE_CHECKING:
    from mia_attention.answering.batches import Prompt
    from mia_attention.settings import AnswerSource

logger = logging.getLogger(__name__)


class AnswerLine(BaseModel):
    """A line of the file; whatever else it holds does not matter."""

    model_config = ConfigDict(extra="ignore")

    id: str
    response: str = ""
    response_ids: list[int] | None = None
    """Emitted token ids, the end-of-sequence token included."""


def check_source(source: AnswerSource | None) -> None:
    """Raise DataError where answers are to come from a file that cannot be read; before a model is looked for."""
    if source is not None and source.file is not None:
        read_answers_file(source.file)


def read_answers_file(path: Path) -> list[AnswerLine]:
    """The lines of a file of answers.

    Raises:
        DataError: there is no such file, a line is broken, or an id comes twice.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected JSONL with id and response, one line per sample")
    lines = list(read_jsonl(path, AnswerLine))
    check_unique((line.id for line in lines), str(path))
    return lines


class FileAnswers:
    """The answers of a file, by the samples' ids."""

    reach, asks = 0, False

    def __init__(self, path: Path, ids: Collection[str]) -> None:
        """Read the file.

        Args:
            ids: of the samples that will be asked about.

        Raises:
            DataError: there is no such file, a line is broken, an id comes twice, or no line answers any of the samples.
        """
        lines = read_answers_file(path)
        self._path = path
        self._lines = {line.id: line for line in lines}
        found = sum(sample_id in self._lines for sample_id in ids)
        if not found:
            example = next(iter(self._lines), None)
            raise DataError(
                f"{path}: answers none of {len(ids)} samples; expected ids such as {next(iter(ids), '?')!r}, "
                f"got {'no line at all' if example is None else repr(example)}"
            )
        if unused := len(self._lines) - found:
            logger.warning("%s: %d of %d answers belong to no sample", path, unused, len(self._lines))

    def ahead(self, prompts: Sequence[Prompt]) -> None:
        """Nothing to do: all is read."""

    def said(self, prompt: Prompt) -> Said:
        """The answer to a sample.

        Raises:
            DataError: the file has none.
        """
        line = self._lines.get(prompt.id)
        if line is None:
            raise DataError(f"{self._path} has no answer to it")
        ids = tuple(line.response_ids) if line.response_ids else None
        return Said(line.response.strip(), ids, ended=ids is None)
