"""The words of a multi-image prompt: which picture the question is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

IMAGE = "<image>"
"""Placeholder that stands in a prompt once for every image."""

Words = Literal["named", "pic_in_pic", "strip"]
"""Name of a list of templates in the settings."""

PIC_IN_PIC_LEADS: tuple[str, ...] = (
    "In the central image",
    "In the image at the center",
    "In the picture in the middle",
    "Looking at the inner image",
    "In the small image at the center",
    "In the smaller picture",
    "In the inset picture",
    "In the image pasted on top",
    "Regarding the picture in the center",
    "Considering the middle image",
    "Looking only at the inset",
    "For the picture inside the picture",
)
"""How a question can name the inner picture; one is drawn per sample."""

TEMPLATES: Mapping[Words, tuple[str, ...]] = {
    "named": ("In {label}, {question}",),
    "pic_in_pic": tuple(f"{lead}, {{question}}" for lead in PIC_IN_PIC_LEADS),
    "strip": ("In the {label} picture from the left, {question}",),
}
"""The built-in templates: `{label}` is what the prompt calls the picture, `{question}` the question."""


def label(index: int) -> str:
    """Name of the part at `index` (from 0): ``Image1`` for the first."""
    return f"Image{index + 1}"


def numbered_labels(count: int) -> list[str]:
    """Image1, Image2 and so on."""
    return [label(i) for i in range(count)]


def ordinal_labels(count: int) -> list[str]:
    """first, second and so on, of up to six parts in a row."""
    return ["first", "second", "third", "fourth", "fifth", "sixth"][:count]


def inset_labels(count: int) -> list[str]:
    """The parts of a pic-in-pic."""
    return ["outer", "inner"]


def sequence_header(count: int) -> str:
    """`Image1:<image>` and so on, a line each."""
    return "".join(f"{label(i)}:{IMAGE}\n" for i in range(count))


def single_header(count: int = 1) -> str:
    """The one image of a prompt, of however many parts, on a line of its own."""
    return f"{IMAGE}\n"
