"""Pictures without questions: rows that hold nothing else, and folders of picture files. Each is asked general questions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mia_augment.images.picture_values import is_empty

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
_MADE_HERE = ("manifest.json", ".work")
"""What the folder of a stage holds, finished or not: its pictures are results, no input."""


def asked_generally(value: Any, number: int, questions: Sequence[str], speaks: Sequence[str]) -> Iterator[Any]:
    """A row with a picture and no words once for each question, which its id then numbers; any other as it is.

    Args:
        value: a row as it stands in a data file.
        number: its place in the file, from 1.
        questions: none: no row is asked.
        speaks: names under which words may stand.
    """
    if not questions or not isinstance(value, Mapping) or any(not is_empty(value.get(name)) for name in speaks):
        yield value
        return
    for place, question in enumerate(questions, 1):
        name = next((value[key] for key in ("id", "__key__") if not is_empty(value.get(key))), f"row-{number}")
        yield {**value, "id": f"{name}-q{place}", "question": question}


def picture_rows(folder: Path) -> Iterator[dict[str, str]]:
    """A row for each picture file in and below a folder, by name; what stages have made, and what is hidden, is left out."""
    for name in picture_names(folder):
        yield {"id": name, "image": name}


def picture_names(folder: Path) -> Iterator[str]:
    """Paths relative to the folder, in their order."""
    for place, below, files in os.walk(folder):
        here = Path(place)
        below[:] = sorted(name for name in below if not name.startswith(".") and not _made_here(here / name))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield (here / name).relative_to(folder).as_posix()


def _made_here(folder: Path) -> bool:
    return any((folder / name).exists() for name in _MADE_HERE)
