"""Tiny models and pairs for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from mia_augment.records import PreferencePair, Region, Scores
from PIL import Image


def picture(name: str) -> Image.Image:
    """A picture of noise whose size and pixels follow from its name."""
    number = int("".join(ch for ch in name if ch.isdigit()) or 0)
    width, height = 60 + 17 * (number % 4), 70 + 23 * (number % 3)
    pixels = np.random.RandomState(number).randint(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make_pair(
    number: int, images: int, *, chosen: str = "the cat is red .", rejected: str = "a dog on the left is blue ."
) -> PreferencePair:
    names = [f"{(number * 5 + k) % 11}.png" for k in range(images)]
    labels = "".join(f"image {['a', 'b', 'c', 'd', 'e'][k]} : <image>\n" for k in range(images))
    return PreferencePair(
        id=f"pair-{number:03d}",
        format="sequence",
        images=names,
        prompt=f"{labels} in image a what is on the {tiny_models.WORDS[number % 8]} ?",
        chosen=chosen,
        rejected=rejected,
        scores=Scores(),
        target=0,
        regions=[Region(image=k, label=f"Image{k + 1}") for k in range(images)],
    )


@pytest.fixture
def build() -> Callable[[str], tuple[Any, Any]]:
    """Gives model and processor."""

    def build(name: str) -> tuple[Any, Any]:
        made = tiny_models.build(name, strong=True)
        return made.model, made.processor

    return build


@pytest.fixture
def open_picture() -> Callable[[str], Image.Image]:
    return picture


@pytest.fixture(name="make_pair")
def make_pair_fixture() -> Callable[..., PreferencePair]:
    return make_pair


@pytest.fixture
def pairs() -> list[PreferencePair]:
    """Nine pairs with one to three images and answers of different lengths."""
    answers = ["red .", "the cat is red .", "two dog in the image on the right .", "one blue cat ."]
    return [
        make_pair(n, 1 + n % 3, chosen=answers[n % 4], rejected=answers[(n + 1 + n % 2) % 4] + " ?" * (n % 2)) for n in range(9)
    ]


@pytest.fixture
def pairs_folder(tmp_path: Path, pairs: list[PreferencePair]) -> Path:
    """A folder as the selection stage leaves it."""
    from mia_augment.storage.files import Manifest, write_jsonl, write_manifest

    folder = tmp_path / "pairs"
    write_jsonl(folder / "pairs.jsonl", pairs)
    for name in {name for pair in pairs for name in pair.images}:
        picture(name).save(folder / name)
    write_manifest(folder, Manifest(stage="select", version="0", settings={}, inputs={}))
    return folder
