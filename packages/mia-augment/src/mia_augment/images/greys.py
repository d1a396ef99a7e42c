"""Grey pictures of more than 8 bits as 8 bits, and their transparency."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

_RANGES = (255, 4095, 65535)
"""White in samples of 8, 12 and 16 bits."""
_BITS, _PHOTOMETRIC, _LARGEST = 258, 262, 281
"""TIFF tags: BitsPerSample, PhotometricInterpretation, MaxSampleValue."""


def eight_bit(image: Image.Image, source: Image.Image) -> Image.Image:
    """Grey levels of more than 8 bits, or floats, as 8 bits; with the transparency of a PNG's grey level as a second band.

    Args:
        image: mode I, F or one of I;16, upright.
        source: as it was opened, with what its file says.

    Raises:
        ValueError: negative levels, or levels above 65535: what is black and white there, no file says.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=np.inf)
    low, top = float(values.min(initial=0)), float(values.max(initial=0))
    if low < 0 or top > _RANGES[-1]:
        raise ValueError(f"its grey levels go from {low:g} to {top:g}, expected 0 to {_RANGES[-1]}; convert it to 8 or 16 bits")
    grey = np.rint(np.clip(values * (255 / _white(image, top)), 0, 255)).astype(np.uint8)
    if _tag(source, _PHOTOMETRIC) == 0:  # TIFF's "white is zero", which Pillow heeds up to 8 bits only
        grey = 255 - grey
    clear = source.info.get("transparency")
    if not isinstance(clear, int):
        return Image.fromarray(grey, "L")
    return Image.fromarray(np.stack([grey, np.where(values == clear, 0, 255).astype(np.uint8)], axis=-1), "LA")


def _white(image: Image.Image, top: float) -> float:
    """The grey level that means white.

    Integers span 16 bits, but for TIFFs that say otherwise, or that hold samples of 8 or 12 bits in wider ones: there it is the
    smallest range that holds the highest level. Of floats, which may span 0..1 too, as well.
    """
    told = _tag(image, _BITS), _tag(image, _LARGEST)
    if told[0] and told[0] < 16:
        return float(2 ** told[0] - 1)
    if told[1] and top <= told[1] <= _RANGES[-1]:
        return float(told[1])
    if image.mode == "F" and top <= 1:
        return 1.0
    guessed = image.format == "TIFF" or image.mode in ("F", "I")
    return float(next(white for white in _RANGES if top <= white)) if guessed else float(_RANGES[-1])


def _tag(image: Image.Image, number: int) -> int | None:
    """The first value of a TIFF's tag."""
    value = getattr(image, "tag_v2", {}).get(number)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None


def scale_clear_level(image: Image.Image) -> None:
    """Give the transparent grey level of a PNG of 2 or 4 bits the scale of its pixels; to be called before they are loaded."""
    tiles: Any = getattr(image, "tile", [])
    clear, kind = image.info.get("transparency"), next((tile.args for tile in tiles), None)
    if isinstance(clear, int) and kind in ("L;2", "L;4"):
        image.info["transparency"] = clear * (85 if kind == "L;2" else 17)
