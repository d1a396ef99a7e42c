"""Noticing that a picture of samples or pairs was replaced after something was made of them.

What was seen of every picture lies in a hidden file of the stage's folder: size, time of change, hash. Where size and time are
the same the picture is not read again; where they differ (a copy of the folder on another machine), its content decides.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from mia_augment.errors import DataError
from mia_augment.storage.files import atomic_write, content_hash, image_folders, read_jsonl, resolve_image

SEEN = ".seen"

_Seen = dict[str, tuple[int, int, str]]
"""Name -> size, time of change (ns), SHA-256."""


class _Source(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    paths: list[str] = []


class Pictured(BaseModel):
    """The fields of a sample or a pair that name pictures."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = ""
    images: list[str]
    rejected_images: list[str] | None = None
    source: _Source = _Source()

    @property
    def all_images(self) -> list[str]:
        """Those of the prompt and those that a pair contrasts them with."""
        return [*self.images, *(self.rejected_images or ())]


def pictures_of(records: Path, *, parts: bool = False) -> list[str]:
    """Names of the pictures of a JSONL file of samples or pairs, in order, each once; with `parts` those of the parts too."""
    found: dict[str, None] = {}
    for record in read_jsonl(records, Pictured):
        found.update(dict.fromkeys([*record.all_images, *(record.source.paths if parts else ())]))
    return list(found)


def pictures_digest(folder_in: Path, file: str, out: Path, *, parts: bool = False, keep: bool = False) -> str:
    """Hash of what the pictures of `folder_in`/`file` hold, the same wherever they lie.

    Args:
        folder_in: a stage's folder.
        file: its samples or pairs.
        out: the folder of what is made of them, where it is looked up what was seen.
        parts: the parts' own pictures belong to it.
        keep: keep there what was seen; for the folder's only writer.
    """
    folders = image_folders(folder_in)
    before, now = _read(out / SEEN), _Seen()
    digest = hashlib.sha256()
    for name in pictures_of(folder_in / file, parts=parts):
        seen = _look(name, folders, before.get(name))
        digest.update(f"{name}\0{seen[2] if seen else '-'}\n".encode())
        if seen:
            now[name] = seen
    moved = now != before and {name: seen[2] for name, seen in now.items()} == {name: seen[2] for name, seen in before.items()}
    if keep or moved:
        _keep(out / SEEN, now)
    return digest.hexdigest()


def _look(name: str, folders: Iterable[Path], before: tuple[int, int, str] | None) -> tuple[int, int, str] | None:
    try:
        path = resolve_image(name, folders)
        state = path.stat()
        if before and before[:2] == (state.st_size, state.st_mtime_ns):
            return before
        return state.st_size, state.st_mtime_ns, hash_of(path, state.st_size, state.st_mtime_ns)
    except (DataError, OSError):
        return None  # who reads the picture says what is wrong with it


@functools.lru_cache(1 << 17)
def hash_of(path: Path, size: int, changed: int) -> str:
    """Hash of a file of that size and time of change; remembered, since a run asks several times."""
    return content_hash(path)


def _read(path: Path) -> _Seen:
    seen = _Seen()
    with contextlib.suppress(OSError, ValueError), path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            size, changed, content, name = line.rstrip("\n").split(" ", 3)
            seen[name] = (int(size), int(changed), content)
    return seen


def _keep(path: Path, seen: _Seen) -> None:
    """It only saves time: where it cannot be written (somebody else's folder), pictures are read again next time."""
    with contextlib.suppress(OSError), atomic_write(path) as file:
        file.writelines(f"{size} {changed} {content} {name}\n" for name, (size, changed, content) in seen.items())
