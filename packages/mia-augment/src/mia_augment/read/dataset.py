"""Reading single-image instruction data row by row, whatever its kind and however large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from mia_augment.errors import DataError
from mia_augment.images.picture_values import StorePicture
from mia_augment.read.csv_rows import csv_values
from mia_augment.read.hub_rows import hub_values, on_hub
from mia_augment.read.json_values import Damaged, json_values
from mia_augment.read.tar_rows import tar_values
from mia_augment.read.text_files import open_text, open_unpacked
from mia_augment.records import Skipped
from mia_augment.rows.bare_pictures import asked_generally, picture_names, picture_rows
from mia_augment.rows.conversation import WORDS
from mia_augment.rows.row import Row, parse_row

__all__ = ["Damaged", "Row", "parse_row", "read_rows", "read_values"]

KINDS = "JSON, JSONL, CSV, TSV, parquet or WebDataset tar"
_SUFFIXES = {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".tar", ".arrow"}
_PACKED = {".gz", ".bz2", ".xz", ".zst", ".zip", ".tgz"}
"""Also of files that cannot be read, so that they are refused rather than passed over."""
_DESCRIPTIONS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""Files that lie beside data and describe it."""
_TAR = slice(257, 262), b"ustar"


def read_rows(
    source: Path, store: StorePicture | None = None, *, unlabelled: bool = False, questions: Sequence[str] = ()
) -> Iterator[Row | Skipped]:
    """Yield the rows of a data set, one at a time, and for each row that cannot be used the reason.

    Args:
        source: a file of JSON, CSV or TSV, parquet, or a WebDataset tar, as it is or packed with gzip, bzip2 or xz (CSV
            apart, by content, not by name); or a folder with such files, in the order of names; or hf://OWNER/NAME.
        store: keeps pictures that come inside the rows, as in parquet files (see `EmbeddedPictures`); None: such rows cannot be
            used.
        unlabelled: rows without an answer are taken, too, their answer empty.
        questions: asked about each picture that comes without words, and about those of a folder of pictures without rows.

    Raises:
        DataError: no such file, a kind of file that is not known, or one that is damaged as a whole.
    """
    source = Path(source)
    values = picture_rows(source) if questions and holds_pictures_only(source) else read_values(source)
    for number, value in enumerate(values, 1):
        if isinstance(value, Damaged):
            yield Skipped(id=f"row-{number}", reason=value.reason)
        else:
            yield from _parsed(value, number, store, unlabelled, questions)


def rows_from(
    values: Iterable[Any], store: StorePicture | None = None, *, unlabelled: bool = False, questions: Sequence[str] = ()
) -> Iterator[Row | Skipped]:
    """Rows from objects in memory: `Row` records, or plain dicts such as a Hugging Face data set yields."""
    for number, value in enumerate(values, 1):
        if isinstance(value, Row | Skipped):
            yield value
        else:
            yield from _parsed(value, number, store, unlabelled, questions)


def _parsed(
    value: Any, number: int, store: StorePicture | None, unlabelled: bool, questions: Sequence[str]
) -> Iterator[Row | Skipped]:
    for asked in asked_generally(value, number, questions, WORDS):
        yield parse_row(asked, number, store, unlabelled=unlabelled)


def holds_pictures_only(source: Path) -> bool:
    """Whether it is a folder with pictures in or below it and no file of rows."""
    if not source.is_dir() or any(map(_holds_data, source.iterdir())):
        return False
    return next(picture_names(source), None) is not None


def data_files(source: Path) -> list[Path]:
    """The file itself, or the data files of a folder in the order of their names.

    Raises:
        DataError: no such file or folder, or a folder without data files.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"{source}: no such file; expected {KINDS}, or a folder of such files")
    files = sorted(path for path in source.iterdir() if _holds_data(path))
    if not files:
        below = sorted({path.parent.relative_to(source).as_posix() for path in source.glob("*/*") if _holds_data(path)})
        hint = f"; name the folder meant: there are some in {', '.join(below[:5])}" if below else ""
        if not hint and holds_pictures_only(source):
            hint = "; its pictures alone, without rows, are taken with `augment.unlabelled: true` (`--unlabelled`)"
        raise DataError(f"{source}: expected files of {KINDS} in this folder, found none{hint}")
    return files


def picture_folder(source: Path, out: Path) -> Path:
    """The folder that pictures are relative to where none is named: the rows'; that of the samples for rows of the hub, which
    bring their pictures along."""
    if on_hub(source):
        return out
    return source if source.is_dir() else source.parent


def _holds_data(path: Path) -> bool:
    packed = path.suffix.lower() in _PACKED
    suffix = Path(path.stem).suffix if packed and path.suffix.lower() != ".tgz" else path.suffix
    known = suffix.lower() in _SUFFIXES or path.suffix.lower() == ".tgz"
    return known and path.name not in _DESCRIPTIONS and not path.name.startswith(".") and path.is_file()


def read_values(source: Path) -> Iterator[Any]:
    """The values of a file or folder as they stand there, and a `Damaged` for each that cannot be read.

    Raises:
        DataError: no such file, a kind of file that is not known, or one that is damaged as a whole.
    """
    if on_hub(source):
        yield from hub_values(source)
        return
    for path in data_files(source):
        yield from _values(path)


def _values(source: Path) -> Iterator[Any]:
    with source.open("rb") as file:
        if file.read(4) == b"PAR1":
            from mia_augment.read.parquet import read_parquet

            yield from read_parquet(source)
            return
    with open_unpacked(source) as unpacked:
        is_tar = unpacked.read(512)[_TAR[0]] == _TAR[1]
    if is_tar:
        yield from tar_values(source)
        return
    with open_text(source) as text:
        first = _beginning(text.file, source)
    suffixes = {suffix.lower() for suffix in source.suffixes}
    with open_text(source) as text:
        if suffixes & {".csv", ".tsv"}:
            yield from csv_values(text)
        elif first[0] in "[{":
            yield from json_values(text)
        else:
            raise DataError(
                f"{source}: expected {KINDS}, got a file that begins with {first!r}; "
                "the name of a CSV file has to end in .csv or .tsv"
            )


def _beginning(file: IO[str], source: Path) -> str:
    """The first characters of a file that are no space."""
    while text := file.read(4096):
        if begun := text.lstrip("\ufeff \t\r\n"):
            return begun[:20]
    raise DataError(f"{source}: the file is empty; expected {KINDS}")
