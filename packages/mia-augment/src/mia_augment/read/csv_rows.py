"""Rows of CSV and TSV files, a line of names first."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import chain

from mia_augment.errors import DataError
from mia_augment.read.json_values import MAX_ROW, Damaged
from mia_augment.read.text_files import Text

_CONTROL = re.compile(r"[\0-\x08\x0e-\x1f]")
_DELIMITERS = ",\t;|"


def csv_values(text: Text) -> Iterator[dict[str, str] | Damaged]:
    """Yield the rows as dicts of what is not empty, and a `Damaged` for each that cannot be read.

    The delimiter is the one that most often stands in the line of names: comma, tab, semicolon or bar.

    Raises:
        DataError: a quote that is never closed.
    """
    csv.field_size_limit(MAX_ROW)
    lines = _lines(text)
    first = next((line for line in lines if line.strip()), "").lstrip("\ufeff")
    delimiter = max(_DELIMITERS, key=first.count)
    if first.lower().startswith("sep=") and len(first.strip("\r\n")) == 5:  # as Excel writes it
        delimiter, first = first[4], next(lines, "")
    if reason := text.undecoded(first, "line 1"):
        raise DataError(reason)
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    try:
        names = [cell.strip() for cell in next(reader)]
        for cells in reader:
            if cells:
                yield _row(names, cells, f"line {reader.line_num}", text)
    except csv.Error as error:
        raise DataError(f"{text.name}: not valid CSV at line {reader.line_num}: {error}; is a quote missing?") from error


def _lines(text: Text) -> Iterator[str]:
    while line := text.file.readline(MAX_ROW):
        if len(line) == MAX_ROW:
            raise DataError(f"{text.name}: expected lines of fewer than {MAX_ROW} characters")
        yield line


def _row(names: list[str], cells: list[str], where: str, text: Text) -> dict[str, str] | Damaged:
    if text.doubtful and (reason := text.undecoded("\n".join(cells), where)):
        return Damaged(reason)
    if any(map(_CONTROL.search, cells)):
        return Damaged(
            f"not UTF-8: {where} of {text.name} holds control characters, as texts in other encodings do (ISO-2022-JP)"
        )
    if len(cells) != len(names):
        expected = ", ".join(names)[:200]
        return Damaged(f"bad row: {where} of {text.name} has {len(cells)} cells, expected {len(names)}: {expected}")
    return {name: cell for name, cell in zip(names, cells, strict=True) if cell != ""}
