"""Reading single-image instruction data row by row, whatever its kind and however large."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from mia_augment.errors import DataError
from mia_augment.given import StorePicture
from mia_augment.records import Skipped
from mia_augment.rows import Row, parse_row

__all__ = ["Row", "parse_row", "read_rows"]

CHUNK = 1 << 20
MAX_ROW = 32 << 20
"""A row longer than this many characters is taken for a broken file."""
LOOKAHEAD = 16
"""An error this near the end of what was read may just mean that the rest has to be read."""
_SUFFIXES = {".json", ".jsonl", ".ndjson", ".parquet"}
_SPACE = " \t\r\n"


class _Damaged:
    """A place in a file where no row could be read."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def read_rows(source: Path, store: StorePicture | None = None) -> Iterator[Row | Skipped]:
    """Yield the rows of a data set, one at a time, and for each that cannot be used why.

    Args:
        source: a JSON array, JSONL, or parquet file (by content, not by name), or a folder with such files (in the order of
            their names).
        store: keeps pictures that come inside the rows, as in parquet files (see `mia_augment.embedded.EmbeddedPictures`);
            None: such rows cannot be used.

    Raises:
        DataError: no such file, a kind of file that is not known, or a JSON array that is damaged in its middle.
    """
    for number, value in enumerate(read_values(Path(source)), 1):
        if isinstance(value, _Damaged):
            yield Skipped(id=f"row-{number}", reason=value.reason)
        else:
            yield parse_row(value, number, store)


def rows_from(values: Iterable[Any], store: StorePicture | None = None) -> Iterator[Row | Skipped]:
    """Rows from objects in memory: `Row` records, or plain dicts such as a Hugging Face data set yields."""
    for number, value in enumerate(values, 1):
        yield value if isinstance(value, Row | Skipped) else parse_row(value, number, store)


def data_files(source: Path) -> list[Path]:
    """The file itself, or the data files of a folder in the order of their names.

    Raises:
        DataError: no such file or folder, or a folder without data files.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"{source}: no such file; expected a JSON array, JSONL or parquet file, or a folder of them")
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not files:
        raise DataError(f"{source}: expected .json, .jsonl or .parquet files in this folder, found none")
    return files


def read_values(source: Path) -> Iterator[Any]:
    """The objects of a file or folder as they stand there."""
    for path in data_files(source):
        yield from _values(path)


def _values(source: Path) -> Iterator[Any]:
    with source.open("rb") as file:
        start = file.read(4)
    if start == b"PAR1":
        from mia_augment.parquet import read_parquet

        yield from read_parquet(source)
        return
    with source.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        first = _first_character(file, source)
        file.seek(0)
        yield from _array(file, source) if first == "[" else _lines(file, source)


def _first_character(file: IO[str], source: Path) -> str:
    while text := file.read(4096):
        if text.strip():
            first = text.lstrip()[0]
            if first not in "[{":
                raise DataError(f"{source}: expected a JSON array, JSONL or parquet, got a file that begins with {text[:20]!r}")
            return first
    raise DataError(f"{source}: the file is empty; expected a JSON array, JSONL or parquet")


def _lines(file: IO[str], source: Path) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        text = line.strip()
        if not text:
            continue
        try:
            yield json.loads(text)
        except (ValueError, RecursionError) as error:
            yield _Damaged(f"bad row: line {number} of {source.name} is not valid JSON: {error}")


def _array(file: IO[str], source: Path) -> Iterator[Any]:
    """The elements of a JSON array, holding no more than one chunk and one element in memory."""
    decode = json.JSONDecoder().raw_decode
    buffer, ended, count, wanted = file.read(CHUNK), False, 1, CHUNK
    position = _skip_space(buffer, 0) + 1  # behind the bracket
    next_row: re.Pattern[str] | None = None
    while True:
        position = _skip_space(buffer, position)
        if position < len(buffer) and buffer[position] == "]":
            return
        try:
            value, end = decode(buffer, position)
            end = _skip_space(buffer, end)
            if end < len(buffer):
                if buffer[end] not in ",]":
                    raise json.JSONDecodeError("expected ',' or ']'", buffer, end)
                next_row = next_row or _row_start(value)
                yield value
                count, position, wanted = count + 1, end + (buffer[end] == ","), CHUNK
                continue
            problem, place = "a bracket is missing at the end", end
        except json.JSONDecodeError as error:
            problem, place = error.msg, len(buffer) if error.msg.startswith("Unterminated") else error.pos
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets within brackets
            problem, place = str(error), position
        damaged = place < len(buffer) - LOOKAHEAD
        behind = next_row.search(buffer, position + 1) if damaged and next_row else None
        if behind:
            yield _Damaged(f"bad row: row {count} of {source.name} is not valid JSON: {problem}")
            count, position = count + 1, behind.start() + 1
            continue
        if ended and not damaged:
            yield _Damaged(f"bad row: {source.name} breaks off in or before its row {count}: {problem}")
            return
        if ended or len(buffer) - position > MAX_ROW:
            raise DataError(
                f"{source}: row {count} is not valid JSON ({problem}) and no row can be found behind it; "
                "mend it, or convert the file to JSONL, where a bad line costs that line alone"
            )
        more = file.read(wanted)
        ended, buffer, position, wanted = not more, buffer[position:] + more, 0, wanted * 2


def _row_start(row: Any) -> re.Pattern[str] | None:
    """What the beginning of a row looks like, to find the next one behind a damaged row: its first key."""
    if not isinstance(row, dict) or not row:
        return None
    return re.compile(r",\s*\{\s*" + re.escape(json.dumps(next(iter(row)), ensure_ascii=False)) + r"\s*:")


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position
