"""How lmms-eval reads samples of MIA and judges the answers: as `mia evaluate` does, equal after normalising."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mia_augment import same_answer
from mia_augment.images import open_picture
from mia_augment.storage import image_folders, resolve_image
from PIL import Image

FORMATS = ("sequence", "grid", "pic_in_pic", "single")


def pictures(doc: dict[str, Any]) -> list[Image.Image]:
    folders = image_folders(Path())
    return [open_picture(resolve_image(name, folders)) for name in doc["images"]]


def prompt(doc: dict[str, Any], lmms_eval_specific_kwargs: dict[str, Any] | None = None) -> str:
    """The prompt with its placeholders: a model that sees `<image>` in the text leaves the pictures in place."""
    return str(doc["prompt"])


def scores(doc: dict[str, Any], results: list[str]) -> dict[str, float | None]:
    right = float(same_answer(results[0], doc["answer"]))
    return {"accuracy": right, **{name: right if name == doc["format"] else None for name in FORMATS}}


def mean_of_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
