"""Noise on a part of a picture, to provoke wrong answers while scoring. The picture used for training stays clean."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mia_augment.errors import ConfigError
from mia_augment.images.geometry import Box


def disturb(image: Image.Image, box: Box | None, sigma: float, rng: np.random.Generator) -> Image.Image:
    """A copy of an RGB picture with Gaussian noise inside `box`, clipped to 0..255.

    Args:
        image: RGB; left as it is.
        box: (left, top, right, bottom) in pixels; None: the whole picture.
        sigma: standard deviation in grey levels (the paper's code: 225 for a grid's cell, 49 for a pic-in-pic). 0: no noise.
        rng: where the noise comes from; the same state gives the same noise.

    Raises:
        ConfigError: not RGB, a negative sigma, or a box that is empty or leaves the picture.
    """
    if image.mode != "RGB":
        raise ConfigError(f"disturb: expected an RGB picture, got mode {image.mode}; open it with open_picture")
    if not sigma >= 0:
        raise ConfigError(f"disturb: expected sigma >= 0, got {sigma}")
    left, top, right, bottom = box or (0, 0, *image.size)
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise ConfigError(f"disturb: expected a box within {image.width} x {image.height} px, got {box}")
    noisy = image.copy()
    if sigma == 0:
        return noisy
    part = np.asarray(image.crop((left, top, right, bottom)), dtype=np.float32)
    noise = rng.standard_normal(part.shape, dtype=np.float32) * np.float32(sigma)
    pixels = np.rint(np.clip(part + noise, 0, 255)).astype(np.uint8)
    noisy.paste(Image.fromarray(pixels, "RGB"), (left, top))
    return noisy
