"""Noticing that pictures were replaced, mended or taken away after samples were made of them.

Size and time of change of every picture lie in a hidden file of the stage's folder. They tell at once that nothing has
changed; where they differ (a copy of the folder on another machine), the contents are looked at.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from mia_augment.errors import DataError
from mia_augment.images.sniff import PictureFolder
from mia_augment.indexing.index import SKIPPED
from mia_augment.storage.files import atomic_write

STATES = ".pictures"


def state_line(name: str, status: os.stat_result | None) -> str:
    """Size, time of change (ns) and name of a picture, as a line; `status` None: it was not found."""
    return f"{status.st_size} {status.st_mtime_ns} {name}\n" if status else f"- - {name}\n"


def untouched(file: Path, pictures: PictureFolder) -> bool:
    """Whether every picture listed in `file` still has the size and time of change it had then; False without such a file."""
    if not file.is_file():
        return False
    with file.open(encoding="utf-8", newline="\n") as lines:
        return all(line == _state_now(line, pictures) for line in lines)


def _state_now(line: str, pictures: PictureFolder) -> str | None:
    name = line.rstrip("\n").split(" ", 2)[-1]
    try:
        return state_line(name, pictures.locate(name)[2])
    except DataError:
        return state_line(name, None)


def keep_states(index: Path, out: Path) -> None:
    """Copy the list of an index to the stage's folder."""
    with (index / STATES).open("rb") as source, atomic_write(out / STATES, "wb") as target:
        shutil.copyfileobj(source, target)


def contents_digest(index: Path) -> str:
    """What `mia_augment.indexing.build.build_index` found in the pictures: the same wherever they are the same."""
    digest = hashlib.sha256()
    for name in ("key.npy", "row_hash.npy", SKIPPED):
        with (index / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
