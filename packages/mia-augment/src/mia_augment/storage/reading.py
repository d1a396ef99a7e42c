"""Reading text files that may hold anything: within bounds, with an error that names the file and what is wrong with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from mia_augment.errors import DataError
from mia_augment.storage.problems import summary

MAX_FILE = 256 << 20
"""Largest file, in bytes, that is read as a whole."""
MAX_LINE = 64 << 20
"""Longest line, in bytes, of a file that is read line by line."""
BOM = b"\xef\xbb\xbf"
"""Byte order mark that some editors put before UTF-8."""
_OTHER_BOMS = (b"\xff\xfe", b"\xfe\xff")

_RecordT = TypeVar("_RecordT", bound=BaseModel)


def read_text(path: Path, mend: str = "save it as UTF-8") -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Args:
        mend: what to do about a damaged file, for the error.

    Raises:
        DataError: no file, larger than `MAX_FILE`, or not UTF-8 (with the line of the first wrong byte).
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size > MAX_FILE:
        raise DataError(f"{path}: expected at most {MAX_FILE >> 20} MB, got {path.stat().st_size >> 20} MB; {mend}")
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: {not_utf8(error)}; {mend}") from error


def not_utf8(error: UnicodeDecodeError) -> str:
    """The message about a text in another encoding."""
    content = bytes(error.object)
    guess = "; it looks like UTF-16" if content.startswith(_OTHER_BOMS) else ""
    return f"not UTF-8 (byte 0x{content[error.start]:02x}{guess})"


def read_json(path: Path, mend: str = "mend or delete it") -> Any:
    """The value of a JSON file.

    Raises:
        DataError: as `read_text`, or no valid JSON, or nested too deeply.
        OSError: it cannot be read.
    """
    try:
        return from_json(read_text(path, mend))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}; {mend}") from error


def read_record(path: Path, kind: type[_RecordT], mend: str = "mend or delete it") -> _RecordT:
    """The record that a JSON file holds.

    Raises:
        DataError: as `read_text`, or not a record of this kind.
        OSError: it cannot be read.
    """
    try:
        return kind.model_validate_json(read_text(path, mend))
    except ValidationError as error:
        raise DataError(f"{path}: not a valid {kind.__name__.lower()}: {summary(error)}; {mend}") from error


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, bytes) of the lines of a file that are not blank, without a byte order mark at its beginning.

    Raises:
        DataError: a line is longer than `MAX_LINE`.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            if len(line) >= MAX_LINE:
                raise DataError(f"{path}, line {number}: expected at most {MAX_LINE >> 20} MB, one record as JSON a line")
            if number == 1:
                line = line.removeprefix(BOM)
            if line := line.strip():
                yield number, line


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say which file an operating system's error is about, as writing to a full disk does not say it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
