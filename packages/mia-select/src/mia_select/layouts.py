"""The table of layouts: how each tool's row of a preference pair is recognized, read and written. One row a tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mia_select.export import row_writers as writers
from mia_select.importing import talks as readers
from mia_select.importing.messages import filled


@dataclass(frozen=True)
class Layout:
    """What is particular to one tool's rows."""

    read: Callable[[readers.ForeignRow], readers.Talk]
    """What a row says: the question, both answers, the pictures."""
    claims: Callable[[Mapping[str, Any]], bool] = lambda row: False
    """Whether a row is this tool's by its columns, where no layout below claims it; never: it is to be named."""
    write: Callable[[writers.Texts], writers.ExportedRow] | None = None
    """From a pair's texts and images to a row; None: it is only read."""
    file: str = ""
    """Name of the exported file; `.jsonl` has a row a line, `.json` is one array, `.parquet` holds the pictures too."""
    beside: Callable[[Path], None] | None = None
    """Writes what the tool needs beside the exported file."""
    pictures: bool = False
    """Whether a row can say that an answer is rejected under other pictures."""


def _both(row: Mapping[str, Any]) -> bool:
    return "chosen" in row and "rejected" in row


def _talks(row: Mapping[str, Any]) -> bool:
    keys = ("conversations", "messages", "conversation", "instruction")
    return _both(row) and any(filled(row, key) is not None for key in keys)


def _question(row: Mapping[str, Any]) -> bool:
    return _both(row) and filled(row, "question") is not None


def _plain_image(row: Mapping[str, Any]) -> bool:
    return _both(row) and filled(row, "image") is not None and isinstance(row.get("prompt"), str)


def _rejected_beside(row: Mapping[str, Any]) -> bool:
    keys = ("rejected_response", "rejected_messages", "rejected_images")
    return any(filled(row, key) is not None for key in keys) or ("rejected_response" in row and not _both(row))


LAYOUTS: dict[str, Layout] = {
    "trl": Layout(readers.read_trl, _both, writers.write_trl, "train.jsonl"),
    "parquet": Layout(readers.read_trl, write=writers.write_trl, file="train.parquet"),
    "mia-dpo": Layout(readers.read_question, _plain_image, writers.write_mia_dpo, "mia_dpo.json"),
    "rlaif-v": Layout(readers.read_question, _question),
    "mmpr": Layout(readers.read_question),
    "llama-factory": Layout(
        readers.read_llama_factory, _talks, writers.write_llama_factory, "mia_pairs.json", writers.add_to_dataset_info
    ),
    "ms-swift": Layout(readers.read_ms_swift, _rejected_beside, writers.write_ms_swift, "train.jsonl", pictures=True),
}
"""`parquet` has TRL's columns, with the pictures inside the file (extra `parquet`). The more columns claim a row, the lower."""

EXPORTED = tuple(name for name, layout in LAYOUTS.items() if layout.write)
"""Layouts that can be written."""
