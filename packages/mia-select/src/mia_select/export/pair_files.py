"""Exporting a folder of pairs to a file of another trainer."""

from __future__ import annotations

import filecmp
import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from mia_augment import IMAGE, ConfigError, DataError, PreferencePair
from mia_augment.storage import (
    atomic_write,
    check_whole,
    clear_left_overs_of,
    image_folders,
    read_jsonl,
    resolve_image,
)

from mia_select.export.plain_pairs import plain_pairs
from mia_select.export.row_writers import ExportedRow, to_row
from mia_select.layouts import EXPORTED, LAYOUTS

logger = logging.getLogger(__name__)

PAIRS = "pairs.jsonl"

ImagePaths = Literal["absolute", "copy"]


def export_pairs(folder: Path, fmt: str, out: Path, *, images: ImagePaths = "absolute") -> Path:
    """Write the pairs of a selection as another trainer reads them; returns the file. One with several rejected answers becomes
    as many plain pairs, and a line in the log says how many there are then.

    Every pair is checked before anything is written: as many placeholders as images, none in an answer, every image found.

    Args:
        folder: a stage's folder with `pairs.jsonl`.
        fmt: `trl`, `llama-factory` (with its entry in `dataset_info.json`), `ms-swift`, `mia-dpo`, or `parquet` (TRL's columns
            with the pictures inside; extra `parquet`).
        out: a folder, or a file if it ends in `.json`, `.jsonl` or `.parquet`.
        images: `absolute` paths, or `copy` the pictures beside the file and name them relative to it.

    Raises:
        ConfigError: unknown format, or pyarrow is missing.
        DataError: a pair or an image is not as it should be, or pairs contrast pictures, which the format has no place for.
    """
    layout = LAYOUTS.get(fmt)
    if layout is None or (write := layout.write) is None:
        raise ConfigError(f"export format {fmt!r}: expected one of {', '.join(EXPORTED)}")
    file = out if out.suffix in (".json", ".jsonl", ".parquet") else out / layout.file
    if file.suffix != Path(layout.file).suffix:
        raise ConfigError(f"{file}: expected a folder or a file ending in {Path(layout.file).suffix} for {fmt}")
    folders = image_folders(folder)
    _check(folder, folders, fmt)
    if file.suffix == ".parquet":
        from mia_select.export.parquet_pairs import write_parquet

        write_parquet(file, _pairs(folder), folders)
        return file

    def row(pair: PreferencePair) -> ExportedRow:
        paths = _image_paths(pair.images, folders, file, images)
        others = pair.rejected_images and _image_paths(pair.rejected_images, folders, file, images)
        return to_row(pair, paths, write, others)

    _write(file, map(row, _pairs(folder)))
    if layout.beside:
        layout.beside(file)
    return file


def _pairs(folder: Path) -> Iterator[PreferencePair]:
    """As plain pairs."""
    return (plain for pair in read_jsonl(folder / PAIRS, PreferencePair) for plain in plain_pairs(pair))


def _check(folder: Path, folders: list[Path], fmt: str) -> None:
    """Look at all pairs, and say how many plain ones they are. Reading them already checks the placeholders of the prompts."""
    check_whole(folder)
    records = rows = contrasting = 0
    for record in read_jsonl(folder / PAIRS, PreferencePair):
        _check_pair(record, folders)
        records, rows = records + 1, rows + len(plain_pairs(record))
        contrasting += record.rejected_images is not None
    if not records:
        raise DataError(f"{folder / PAIRS}: expected at least one pair, it is empty")
    if contrasting and not LAYOUTS[fmt].pictures:
        able = ", ".join(name for name, layout in LAYOUTS.items() if layout.pictures)
        raise DataError(
            f"{folder / PAIRS}: {contrasting} of {records} pairs contrast pictures (rejected_images), for which {fmt} has no "
            f"place; export to {able}, or select them without (`rejected` other than image, `other_picture: null`)"
        )
    if rows != records:
        logger.warning("%d pairs are written as %d plain ones, one for each rejected answer or condition", records, rows)


def _check_pair(pair: PreferencePair, folders: list[Path]) -> None:
    for side, text in (("chosen", pair.chosen), *(("rejected", answer.text) for answer in pair.rejected_answers)):
        if IMAGE in text:
            raise DataError(f"pair {pair.id}: expected {IMAGE} in the prompt only, the {side} answer holds it")
    for name in (*pair.images, *(pair.rejected_images or ())):
        try:
            resolve_image(name, folders)
        except DataError as error:
            raise DataError(f"pair {pair.id}: {error}") from error


def _image_paths(pictures: list[str], folders: list[Path], file: Path, images: ImagePaths) -> list[str]:
    paths = [resolve_image(name, folders) for name in pictures]
    if images == "absolute":
        return [path.as_posix() for path in paths]
    names = [f"images/{name}" for name in pictures]
    for path, name in zip(paths, names, strict=True):
        copy = file.parent / name
        if not (copy.is_file() and filecmp.cmp(path, copy, shallow=False)):
            with path.open("rb") as source, atomic_write(copy, "wb") as target:  # a kill leaves no half copy
                shutil.copyfileobj(source, target)
    return names


def _write(file: Path, rows: Iterable[ExportedRow]) -> None:
    lines = file.suffix == ".jsonl"
    clear_left_overs_of(file)
    with atomic_write(file) as stream:
        for index, row in enumerate(rows):
            if not lines:
                stream.write("[\n" if index == 0 else ",\n")
            stream.write(json.dumps(row, ensure_ascii=False))
            if lines:
                stream.write("\n")
        if not lines:
            stream.write("\n]\n")
