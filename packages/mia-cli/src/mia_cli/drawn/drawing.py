"""Procedurally drawn pictures with known attributes: what the embedded model was trained on, and the quickstart's data.

A picture shows one to three equal shapes and a letter on a plain background, each in a quadrant of its own. The
combinations of attributes are divided once and for all into training, validation and test ones (`split_of`), so no
combination of the test pictures was ever seen in training.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

Split = Literal["train", "validation", "test"]
Color = tuple[int, int, int]
Scene = dict[str, str]
"""Attribute -> value, e.g. ``{"color": "red", "shape": "ring", ...}``."""

SIZE = 96
"""Width and height of a picture in pixels."""

COLORS: dict[str, Color] = {
    "red": (220, 40, 40),
    "green": (50, 175, 60),
    "blue": (50, 80, 230),
    "yellow": (245, 225, 50),
    "purple": (150, 50, 190),
    "orange": (245, 140, 30),
}
BACKGROUNDS: dict[str, Color] = {
    "white": (245, 245, 245),
    "black": (15, 15, 15),
    "gray": (128, 128, 128),
    "pink": (250, 185, 205),
    "brown": (115, 75, 40),
    "navy": (20, 25, 95),
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "color": tuple(COLORS),
    "shape": ("circle", "square", "triangle", "cross", "ring"),
    "count": ("one", "two", "three"),
    "letter": ("A", "C", "H", "S", "T", "X"),
    "background": tuple(BACKGROUNDS),
}
QUESTIONS: dict[str, str] = {
    "color": "What color are the shapes?",
    "shape": "Which shape is drawn?",
    "count": "How many shapes are there?",
    "letter": "Which letter is written?",
    "background": "What is the color of the background?",
}

_STENCIL = 96
_TILTS = (-0.2, -0.1, 0.0, 0.1, 0.2)


def true_answer(scene: Scene, attribute: str) -> str:
    """Ground truth for `QUESTIONS[attribute]`, in the embedded model's own words."""
    return f"The {attribute} is {scene[attribute]}."


def split_of(scene: Scene) -> Split:
    """Which split a combination of attributes belongs to: 8 : 1 : 1, fixed."""
    index = 0
    for name, values in ATTRIBUTES.items():
        index = index * len(values) + values.index(scene[name])
    bucket = (index * 2654435761 >> 8) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


@functools.cache
def scenes(split: Split) -> tuple[Scene, ...]:
    """All combinations of one split."""
    every = (dict(zip(ATTRIBUTES, values, strict=True)) for values in itertools.product(*ATTRIBUTES.values()))
    return tuple(scene for scene in every if split_of(scene) == split)


def draw_scene(scene: Scene, rng: random.Random) -> tuple[Image.Image, list[tuple[str, tuple[int, int, int, int]]]]:
    """Draw a scene with random places, sizes, tilts and shades.

    Returns:
        The picture (SIZE x SIZE, RGB), and what lies in which box (left, top, right, bottom).
    """
    picture = Image.new("RGB", (SIZE, SIZE), _shade(BACKGROUNDS[scene["background"]], rng))
    quadrants = rng.sample(range(4), 4)
    count = ATTRIBUTES["count"].index(scene["count"]) + 1
    contents = []
    for quadrant in quadrants[:count]:
        stencil = _shape_stencil(scene["shape"], rng.choice(_TILTS))
        box = _paste(picture, stencil, quadrant, _shade(COLORS[scene["color"]], rng), rng)
        contents.append((scene["shape"], box))
    dark = sum(BACKGROUNDS[scene["background"]]) < 330
    stencil = _letter_stencil(scene["letter"], rng.choice(_TILTS))
    box = _paste(picture, stencil, quadrants[3], (240, 240, 240) if dark else (10, 10, 10), rng)
    contents.append((scene["letter"], box))
    return picture, contents


def _paste(
    picture: Image.Image, stencil: Image.Image, quadrant: int, color: Color, rng: random.Random
) -> tuple[int, int, int, int]:
    half = SIZE / 2
    size = round(half * rng.uniform(0.74, 0.97))
    left = round(quadrant % 2 * half + rng.uniform(0, half - size))
    top = round(quadrant // 2 * half + rng.uniform(0, half - size))
    mask = stencil.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    picture.paste(color, (left, top), mask)
    return left, top, left + size, top + size


def _shade(color: Color, rng: random.Random) -> Color:
    red, green, blue = (max(0, min(255, channel + rng.randint(-14, 14))) for channel in color)
    return red, green, blue


@functools.cache
def _shape_stencil(shape: str, tilt: float) -> Image.Image:
    """A shape as a mask of _STENCIL x _STENCIL, drawn at twice that size and reduced."""
    size = 2 * _STENCIL
    mask = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(mask)
    centre, radius = size / 2, size * 0.46
    if shape in ("circle", "ring"):
        pen.ellipse([centre - radius, centre - radius, centre + radius, centre + radius], fill=255)
        if shape == "ring":
            hole = radius / 2
            pen.ellipse([centre - hole, centre - hole, centre + hole, centre + hole], fill=0)
    else:
        cos, sin = math.cos(tilt), math.sin(tilt)
        turned = [(x * cos - y * sin, x * sin + y * cos) for x, y in _OUTLINES[shape]]
        pen.polygon([(centre + radius * x, centre + radius * y) for x, y in turned], fill=255)
    return mask.resize((_STENCIL, _STENCIL), Image.Resampling.BOX)


_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)],
    "triangle": [(1.05 * math.sin(i * 2 * math.pi / 3), -1.05 * math.cos(i * 2 * math.pi / 3)) for i in range(3)],
    "cross": [
        (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3),
        (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3),
    ],
}  # fmt: skip


@functools.cache
def _letter_stencil(letter: str, tilt: float) -> Image.Image:
    mask = Image.new("L", (_STENCIL, _STENCIL), 0)
    font = ImageFont.load_default(_STENCIL + 8)
    pen = ImageDraw.Draw(mask)
    pen.text((_STENCIL / 2, _STENCIL / 2), letter, font=font, fill=255, stroke_width=3, anchor="mm")
    return mask.rotate(math.degrees(tilt) / 1.2, resample=Image.Resampling.BILINEAR)
