"""Pairs of any tool as a folder that can be trained on."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from mia_augment import ConfigError, DataError, PreferencePair
from mia_augment.images import StorePicture
from mia_augment.read import Damaged, read_values
from mia_augment.storage import (
    MANIFEST,
    Manifest,
    Progress,
    Stage,
    atomic_write,
    content_hash,
    image_folders,
    run_stage,
)

from mia_select.importing.pairs import NamePicture, SkippedRow, own_ids, to_pair
from mia_select.importing.written_pictures import NamedPictures, WrittenPictures
from mia_select.layouts import LAYOUTS

PAIRS, SKIPPED = "pairs.jsonl", "skipped.jsonl"
TOLD_EVERY_ROWS = 100
IMPORT_FORMATS = ("auto", *LAYOUTS)


def import_pairs(file: Path, fmt: str = "auto", *, store: StorePicture | None = None) -> Iterator[PreferencePair | SkippedRow]:
    """Read the pairs that `export_pairs` or another tool wrote, and for each row without a pair the reason.

    Pictures stay where they are: `images` of a pair are the names it was exported with, else the paths of the row. Repeated
    ids are told apart by a number.

    Args:
        file: JSON, JSONL or parquet (see `mia_augment.read.dataset.read_rows`), or a folder that `export_pairs` wrote.
        fmt: one of `mia_select.LAYOUTS`, or `auto`: each row tells its own by its columns.
        store: keeps pictures that stand in the rows; None: such rows are refused, but for our own exports.

    Raises:
        ConfigError: unknown format.
        DataError: no such file, or no kind of file that holds rows.
    """
    _known(fmt)
    return own_ids(_records(_source(file, fmt), fmt, NamedPictures(store)))


def import_folder(
    file: Path,
    out: Path,
    fmt: str = "auto",
    *,
    image_root: Path | None = None,
    drop_system: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Write `pairs.jsonl`, `images/`, `skipped.jsonl` and a manifest, as training expects them; returns the manifest.

    Args:
        file: see `import_pairs`.
        out: the folder to make.
        fmt: see `import_pairs`.
        image_root: folder to which the pictures' paths are relative; None: the file's own, and those that a manifest
            beside it names.
        drop_system: leave out system messages, counted as `without_system`, instead of the rows that have one.
        progress: called with the number of rows read.

    Raises:
        ConfigError: unknown format, another process writes the folder, or it holds the results of another stage.
        DataError: no such file, or not one pair in it (with the reasons, counted).
    """
    stage = import_stage(file, out, fmt, image_root=image_root, drop_system=drop_system)
    return run_stage(stage, progress).manifest


def import_stage(
    file: Path, out: Path, fmt: str = "auto", *, image_root: Path | None = None, drop_system: bool = False
) -> Stage:
    """The import as a stage (see `import_folder`), made anew each time: its manifest does not tell which pictures were read."""
    _known(fmt)
    source = _source(file, fmt)
    if image_root is not None and not image_root.is_dir():
        raise DataError(f"{image_root}: no such folder; expected the one to which the pictures' paths are relative")
    roots = [image_root.resolve()] if image_root else image_folders(source if source.is_dir() else source.parent)

    def plan() -> Manifest:
        return Manifest(
            stage="import",
            version=version("mia-select"),
            settings={"format": fmt, "image_roots": [root.as_posix() for root in roots], "drop_system": drop_system},
            inputs={source.name: content_hash(source)},
        )

    def make(planned: Manifest, progress: Progress) -> Manifest:
        lost = Counter[str]()
        without_system = (lambda: lost.update(["without_system"])) if drop_system else None
        counts = _write(_records(source, fmt, WrittenPictures(roots, out), without_system), out, file, progress)
        return planned.model_copy(update={"counts": counts | lost})

    return Stage("import", out, plan, make, always=True)


def _known(fmt: str) -> None:
    if fmt != "auto" and fmt not in LAYOUTS:
        raise ConfigError(f"import format {fmt!r}: expected one of auto, {', '.join(LAYOUTS)}")


def _source(file: Path, fmt: str) -> Path:
    """The file, or what `export_pairs` wrote into a folder."""
    if file.is_dir():
        own = LAYOUTS[fmt].file if fmt in LAYOUTS else ""
        names = [own] if own else [*(layout.file for layout in LAYOUTS.values() if layout.file), PAIRS]
        file = next((file / name for name in names if (file / name).is_file()), file)
    if not file.exists():
        raise DataError(f"{file}: no such file; expected preference pairs as JSON, JSONL or parquet")
    return file


def _records(
    source: Path, fmt: str, name_picture: NamePicture, without_system: Callable[[], None] | None = None
) -> Iterator[PreferencePair | SkippedRow]:
    for number, value in enumerate(read_values(source), 1):
        if isinstance(value, Damaged):
            yield SkippedRow(id=f"row-{number}", row=number, reason=value.reason)
        else:
            yield to_pair(value, number, fmt, name_picture, without_system)


def _write(records: Iterator[PreferencePair | SkippedRow], out: Path, file: Path, progress: Progress) -> dict[str, int]:
    pairs, reasons, renamed, first = 0, Counter[str](), list[str](), ""
    with contextlib.ExitStack() as files:
        kept: IO[Any] = files.enter_context(atomic_write(out / PAIRS))
        skipped: IO[Any] = files.enter_context(atomic_write(out / SKIPPED))
        for rows, record in enumerate(own_ids(records, renamed.append), 1):
            if isinstance(record, SkippedRow):
                reasons[record.reason.split(":")[0]] += 1
                first = first or f"row {record.row}: {record.reason}"
            else:
                pairs += 1
            (skipped if isinstance(record, SkippedRow) else kept).write(record.model_dump_json() + "\n")
            if rows % TOLD_EVERY_ROWS == 0:
                progress(rows, None)
        if not pairs:
            kinds = ", ".join(f"{count} {kind}" for kind, count in reasons.most_common())
            why = f" ({kinds}); the first, {first}" if first else ""
            raise DataError(f"{file}: expected at least one preference pair, none of its {reasons.total()} rows gives one{why}")
        (out / MANIFEST).unlink(missing_ok=True)  # it spoke of the files that are about to be replaced
    counts = {"rows": pairs + reasons.total(), "pairs": pairs, "skipped": reasons.total(), "renamed": len(renamed)}
    return counts | {f"skipped/{kind}": count for kind, count in reasons.most_common()}
