"""Exporting a folder of pairs to a file of another trainer."""

from __future__ import annotations

import filecmp
import json
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

from mia_select.export.row_writers import ExportedRow, to_row
from mia_select.layouts import EXPORTED, LAYOUTS

PAIRS = "pairs.jsonl"

ImagePaths = Literal["absolute", "copy"]


def export_pairs(folder: Path, fmt: str, out: Path, *, images: ImagePaths = "absolute") -> Path:
    """Write the pairs of a selection as another trainer reads them; returns the file.

    Every pair is checked before anything is written: as many placeholders as images, none in an answer, every image found.

    Args:
        folder: a stage's folder with `pairs.jsonl`.
        fmt: `trl`, `llama-factory` (with its entry in `dataset_info.json`), `ms-swift`, `mia-dpo`, or `parquet` (TRL's columns
            with the pictures inside; extra `parquet`).
        out: a folder, or a file if it ends in `.json`, `.jsonl` or `.parquet`.
        images: `absolute` paths, or `copy` the pictures beside the file and name them relative to it.

    Raises:
        ConfigError: unknown format, or pyarrow is missing.
        DataError: a pair or an image is not as it should be.
    """
    layout = LAYOUTS.get(fmt)
    if layout is None or (write := layout.write) is None:
        raise ConfigError(f"export format {fmt!r}: expected one of {', '.join(EXPORTED)}")
    file = out if out.suffix in (".json", ".jsonl", ".parquet") else out / layout.file
    if file.suffix != Path(layout.file).suffix:
        raise ConfigError(f"{file}: expected a folder or a file ending in {Path(layout.file).suffix} for {fmt}")
    folders = image_folders(folder)
    if not _check(folder, folders):
        raise DataError(f"{folder / PAIRS}: expected at least one pair, it is empty")
    if file.suffix == ".parquet":
        from mia_select.export.parquet_pairs import write_parquet

        write_parquet(file, _pairs(folder), folders)
        return file
    rows = (to_row(pair, _image_paths(pair, folders, file, images), write) for pair in _pairs(folder))
    _write(file, rows)
    if layout.beside:
        layout.beside(file)
    return file


def _pairs(folder: Path) -> Iterator[PreferencePair]:
    return read_jsonl(folder / PAIRS, PreferencePair)


def _check(folder: Path, folders: list[Path]) -> int:
    """Look at all pairs; returns how many. Reading them already checks the placeholders of the prompts."""
    check_whole(folder)
    count = 0
    for pair in _pairs(folder):
        count += 1
        for side, text in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            if IMAGE in text:
                raise DataError(f"pair {pair.id}: expected {IMAGE} in the prompt only, the {side} answer holds it")
        for name in pair.images:
            try:
                resolve_image(name, folders)
            except DataError as error:
                raise DataError(f"pair {pair.id}: {error}") from error
    return count


def _image_paths(pair: PreferencePair, folders: list[Path], file: Path, images: ImagePaths) -> list[str]:
    paths = [resolve_image(name, folders) for name in pair.images]
    if images == "absolute":
        return [path.as_posix() for path in paths]
    names = [f"images/{name}" for name in pair.images]
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
