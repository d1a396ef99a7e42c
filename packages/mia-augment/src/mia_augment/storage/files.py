"""Files of a stage: written whole or not at all, read record by record, known by their content.

A stage's folder holds its output files and a `manifest.json` that says from what they were made. The manifest is written
last, so a folder whose manifest matches inputs and settings is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mia_augment.errors import DataError
from mia_augment.storage.problems import summary
from mia_augment.storage.reading import naming, not_utf8, read_lines, read_record

__all__ = [
    "MANIFEST",
    "Manifest",
    "atomic_write",
    "content_hash",
    "image_folders",
    "naming",
    "read_jsonl",
    "read_manifest",
    "relative_folders",
    "resolve_image",
    "write_json",
    "write_jsonl",
    "write_manifest",
]

MANIFEST = "manifest.json"

_RecordT = TypeVar("_RecordT", bound=BaseModel)


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing under a temporary name; it appears, whole and synced, when the block ends well.

    >>> with atomic_write(Path("notes.txt")) as file:
    ...     file.write("all or nothing")
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    try:
        with naming(path), temporary.open(mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Write one record a line, whole or not at all; returns how many."""
    count = 0
    with atomic_write(path) as file:
        for record in records:
            file.write(record.model_dump_json() + "\n")
            count += 1
    return count


def read_jsonl(path: Path, record_type: type[_RecordT]) -> Iterator[_RecordT]:
    """Yield the records of a JSONL file.

    Raises:
        DataError: the file is missing, or a line is no valid record (with its number and what is wrong with it).
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected one {record_type.__name__} as JSON a line")
    for number, line in read_lines(path):
        try:
            yield record_type.model_validate_json(line)
        except ValidationError as error:
            raise DataError(f"{path}, line {number}: not a valid {record_type.__name__}: {_damage(line, error)}") from error


def _damage(line: bytes, error: ValidationError) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return not_utf8(wrong)
    return summary(error)


class Manifest(BaseModel):
    """Record of a stage's folder: its inputs, settings and counts."""

    model_config = ConfigDict(extra="forbid")

    stage: str
    version: str
    """Version of the package that made it."""
    settings: dict[str, Any]
    inputs: dict[str, str]
    """Name -> content hash of everything read."""
    image_folders: list[str] = []
    """Where the images lie, searched in this order after the stage's own folder; relative to it, or absolute."""
    counts: dict[str, int] = {}
    seconds: float | None = None
    notes: dict[str, str] = {}
    """How it was made, for whoever reads it."""

    def same_work(self, other: Manifest) -> bool:
        """Whether both would give the same files: stage, version, settings and inputs agree."""
        mine, theirs = (m.model_dump(include={"stage", "version", "settings", "inputs"}) for m in (self, other))
        return mine == theirs

    @property
    def work_key(self) -> str:
        """Hash of what decides the files, for notes about unfinished work."""
        return hashlib.sha256(self.model_dump_json(include={"stage", "version", "settings", "inputs"}).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a stage's folder; None where there is none (the stage was never finished)."""
    path = folder / MANIFEST
    return read_record(path, Manifest, "delete the folder to redo it") if path.is_file() else None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json(folder / MANIFEST, manifest.model_dump())


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def image_folders(folder: Path) -> list[Path]:
    """Folders in which the images of a stage lie: its own, then those its manifest names."""
    manifest = read_manifest(folder)
    named = manifest.image_folders if manifest else []
    return list(dict.fromkeys((folder / name).resolve() for name in [".", *named]))


def relative_folders(folders: Iterable[Path], to: Path) -> list[str]:
    """`folders` as a manifest in the folder `to` names them: relative, so that a run directory can be moved as a whole."""
    return [Path(os.path.relpath(folder.resolve(), to.resolve())).as_posix() for folder in folders]


def resolve_image(name: str, folders: Iterable[Path]) -> Path:
    """Absolute path of an entry of `images`: in the first of the folders that has it.

    Raises:
        DataError: absolute, leaving its folder (``..`` or a symlink), or in none of them.
    """
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise DataError(f"image {name!r}: expected a path relative to the image root, without '..'")
    searched = []
    for folder in folders:
        path = (folder / name).resolve()
        if path.is_file():
            if not path.is_relative_to(folder.resolve()):
                raise DataError(f"image {name!r}: a symlink leads out of {folder}")
            return path
        searched.append(str(folder))
    raise DataError(f"image {name!r}: no such file in {' or '.join(searched)}")
