"""The words of a multi-image prompt: which picture the question is about."""

from __future__ import annotations

from mia_augment.records import IMAGE

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


def label(index: int) -> str:
    """Name of the part at `index` (from 0): ``Image1`` for the first."""
    return f"Image{index + 1}"


def sequence_header(count: int) -> str:
    """`Image1:<image>` and so on, a line each."""
    return "".join(f"{label(i)}:{IMAGE}\n" for i in range(count))


def single_header() -> str:
    """The one picture of a grid, a pic-in-pic or a single-image prompt, on a line of its own."""
    return f"{IMAGE}\n"
