"""Opening the pictures of a record."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from mia_augment.images.decode import open_picture
from mia_augment.storage.files import image_folders, resolve_image

OpenImage = Callable[[str], Image.Image]
"""From an entry of a record's `images` to an upright RGB picture; raises DataError where it is missing or damaged."""


def picture_opener(folder: Path) -> OpenImage:
    """A function that opens the pictures of a folder's records wherever its manifest says that they lie; picklable."""
    return functools.partial(_opened, image_folders(folder))


def _opened(folders: Sequence[Path], name: str) -> Image.Image:
    return open_picture(resolve_image(name, folders))
