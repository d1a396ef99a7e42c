"""A strip: pictures side by side in one, of the same height and without labels, so that only their order tells them apart."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from mia_augment.compose.canvas import RESAMPLE, WHITE, Composed
from mia_augment.errors import ConfigError
from mia_augment.images.geometry import Box, fit

WIDEST = 8
"""A picture wider than so many times its height is made lower than the strip, so that it leaves room for the others."""


def compose_strip(
    images: Sequence[Image.Image], *, height: int = 336, gap: int = 16, resample: Image.Resampling = RESAMPLE
) -> Composed:
    """Put pictures side by side: ::

        [     ] [  ] [       ]

    Each keeps its aspect ratio and is as high as the strip; the very wide ones (`WIDEST`) lie at its top.

    Args:
        images: two or more RGB pictures, from left to right.
        height: of the strip in pixels.
        gap: white pixels between neighbours.
        resample: filter for resizing.

    Raises:
        ConfigError: fewer than two pictures, or sizes out of range.
    """
    if len(images) < 2 or height < 1 or gap < 0:
        raise ConfigError(
            f"compose_strip: expected 2 or more pictures, height >= 1, gap >= 0; got {len(images)}, {height}, {gap}"
        )
    sizes = [fit(image.size, (WIDEST * height, height)) for image in images]
    canvas = Image.new("RGB", (sum(width for width, _ in sizes) + gap * (len(sizes) - 1), height), WHITE)
    boxes: list[Box] = []
    left = 0
    for image, size in zip(images, sizes, strict=True):
        canvas.paste(image.resize(size, resample, reducing_gap=2.0), (left, 0))
        boxes.append((left, 0, left + size[0], size[1]))
        left += size[0] + gap
    return Composed(canvas, tuple(boxes))
