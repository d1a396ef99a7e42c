"""Places and sizes in pictures, in pixels."""

from __future__ import annotations

Box = tuple[int, int, int, int]
"""(left, top, right, bottom), half-open."""


def fit(size: tuple[int, int], bounds: tuple[int, int]) -> tuple[int, int]:
    """Largest (width, height) of the same aspect ratio within bounds; at least 1 px each way.

    >>> fit((640, 480), (448, 448))
    (448, 336)
    """
    scale = min(bounds[0] / size[0], bounds[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
