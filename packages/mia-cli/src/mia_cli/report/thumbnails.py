"""Thumbnails, and the attention laid over them, that travel inside the page."""

from __future__ import annotations

import base64
import io
from typing import TypedDict

import numpy as np
from mia_augment import DataError
from mia_augment.images import OpenImage
from numpy.typing import NDArray
from PIL import Image

HEAT = ((87, 16, 110), (188, 55, 84), (249, 142, 9), (255, 236, 90))
"""Colours from little attention to the most."""


class Thumbnail(TypedDict):
    """A small copy of a picture and how large the picture is, so that boxes can be laid over it; (width, height) px."""

    src: str
    shown: tuple[int, int]
    width: int
    height: int


class Thumbnails:
    """Makes each picture's thumbnail once."""

    def __init__(self, open_image: OpenImage, longest: int) -> None:
        self._open = open_image
        self._longest = longest
        self.made: dict[str, Thumbnail] = {}
        self.missing: set[str] = set()
        """Pictures that cannot be opened any more: the page does without them."""

    def add(self, name: str, *, composed: bool = False) -> None:
        """Make the thumbnail of an entry of `images`; one that holds several pictures gets twice the size."""
        if name in self.made or name in self.missing:
            return
        try:
            picture = self._open(name)
        except DataError:
            self.missing.add(name)
        else:
            self.made[name] = thumbnail(picture, self._longest * 2 if composed else self._longest)


def thumbnail(picture: Image.Image, longest: int) -> Thumbnail:
    """A WebP data URI with at most `longest` px a side."""
    small = picture.copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=80, method=4)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"src": f"data:image/webp;base64,{data}", "shown": small.size, "width": picture.width, "height": picture.height}


def heat_png(cells: NDArray[np.float64]) -> str:
    """Cells (rows, columns) of 0..1 as a data URI of a small picture: from clear (nothing) over purple and red to yellow."""
    stops = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(cells, stops, [color[channel] for color in HEAT]) for channel in range(3)]
    buffer = io.BytesIO()
    Image.fromarray(np.stack([*channels, 255 * cells], axis=-1).round().astype(np.uint8)).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
