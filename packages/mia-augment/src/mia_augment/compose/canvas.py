"""Several pictures in one: grid collages and pic-in-pic, with the exact place of every part.

Sizes are (width, height) and boxes (left, top, right, bottom), in pixels, half-open.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from mia_augment.errors import ConfigError
from mia_augment.images.geometry import Box, fit

WHITE = (255, 255, 255)
RESAMPLE = Image.Resampling.LANCZOS

GRID_ROWS = {2: 1, 3: 1, 4: 2, 5: 2, 6: 2, 7: 3, 8: 3, 9: 3}
"""Number of parts -> rows of the grid. 2, 3, 4, 6 and 9 as in the paper's code; a last row may stay short."""


@dataclass(frozen=True)
class Composed:
    """A composed picture and where each part lies in it, label margins excluded."""

    image: Image.Image
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class GridStyle:
    """Sizes of a grid collage in pixels (defaults: the paper's code)."""

    cell: int = 448
    gap: int = 40
    label: int = 36
    """Type size of the labels; their strip above each cell is as high as the gap."""


def compose_grid(
    images: Sequence[Image.Image],
    labels: Sequence[str],
    *,
    rows: int | None = None,
    style: GridStyle | None = None,
    resample: Image.Resampling = RESAMPLE,
) -> Composed:
    """Put pictures side by side in labelled cells: ::

        Image1   Image2
        [     ]  [     ]
        Image3   Image4
        [     ]  [     ]

    Each keeps its aspect ratio and lies at the top left of its cell, its label in the strip above.

    Args:
        images: two to nine RGB pictures.
        labels: one per picture.
        rows: rows of the grid; by default `GRID_ROWS`.
        style: cell size, gap and type size.
        resample: filter for resizing; Lanczos is the sharpest, Hamming costs less than half.

    Raises:
        ConfigError: fewer than two or more than nine pictures, not one label each, or more rows than pictures.
    """
    style = style or GridStyle()
    if len(images) not in GRID_ROWS or len(labels) != len(images):
        raise ConfigError(f"compose_grid: expected 2 to 9 pictures and as many labels, got {len(images)} and {len(labels)}")
    row_count = rows or GRID_ROWS[len(images)]
    if not 1 <= row_count <= len(images):
        raise ConfigError(f"compose_grid: expected 1 to {len(images)} rows, got {row_count}")
    columns = math.ceil(len(images) / row_count)
    step = style.cell + style.gap
    canvas = Image.new("RGB", (columns * step - style.gap, row_count * step), WHITE)
    pen = ImageDraw.Draw(canvas)
    boxes: list[Box] = []
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        left, top = index % columns * step, index // columns * step + style.gap
        size = fit(image.size, (style.cell, style.cell))
        canvas.paste(image.resize(size, resample, reducing_gap=2.0), (left, top))
        middle = (left + style.cell / 2, top - style.gap / 2)
        pen.text(middle, label, font=_font(style.label), fill=(0, 0, 0), anchor="mm")
        boxes.append((left, top, left + size[0], top + size[1]))
    return Composed(canvas, tuple(boxes))


def compose_pic_in_pic(
    outer: Image.Image,
    inner: Image.Image,
    *,
    scale: float = 0.7,
    position: tuple[float, float] = (0.5, 0.5),
    resample: Image.Resampling = RESAMPLE,
) -> Composed:
    """Paste a picture, shrunk, onto another.

    Args:
        outer: the picture beneath; the result has its size.
        inner: fits into `scale` of the outer width and height, keeping its aspect ratio.
        scale: in (0, 1); the paper's is 0.7.
        position: of the inner picture between the edges, (0, 0) top left, (0.5, 0.5) the middle, (1, 1) bottom right.
        resample: filter for resizing.

    Returns:
        Boxes of the outer (the whole picture) and of the inner one, in this order.

    Raises:
        ConfigError: scale or position out of range.
    """
    if not 0 < scale < 1 or not all(0 <= p <= 1 for p in position):
        raise ConfigError(
            f"compose_pic_in_pic: expected 0 < scale < 1 and a position in 0..1, got scale {scale}, position {position}"
        )
    bounds = (max(1, round(outer.width * scale)), max(1, round(outer.height * scale)))
    size = fit(inner.size, bounds)
    left = round((outer.width - size[0]) * position[0])
    top = round((outer.height - size[1]) * position[1])
    canvas = outer.copy()
    canvas.paste(inner.resize(size, resample, reducing_gap=2.0), (left, top))
    return Composed(canvas, ((0, 0, *outer.size), (left, top, left + size[0], top + size[1])))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
