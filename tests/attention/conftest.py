"""Samples to score with tiny random vision-language models, and their pictures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_models
from mia_augment.errors import DataError
from mia_augment.records import Region, Sample, Source
from PIL import Image

build = functools.cache(tiny_models.build)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


PICTURES = {
    "a.png": (100, 60, 1),
    "b.png": (70, 130, 2),
    "c.png": (64, 64, 3),
    "grid.png": (936, 488, 4),
    "pip.png": (120, 90, 5),
}


def open_image(name: str) -> Image.Image:
    return picture(*PICTURES[name])


def sample(name: str, images: list[str], prompt: str, regions: list[Region], target: int, kind: str) -> Sample:
    parts = len(regions)
    source = Source(
        ids=[f"row{i}" for i in range(parts)], paths=["a.png", "b.png", "c.png"][:parts], question="what is on the left ?"
    )
    return Sample(
        id=name,
        format=kind,  # type: ignore[arg-type]
        images=images,
        prompt=prompt,
        answer="a cat",
        regions=regions,
        target=target,
        source=source,
    )


def sequence(name: str, images: list[str], target: int) -> Sample:
    regions = [Region(image=i, label=f"Image{i + 1}") for i in range(len(images))]
    header = "".join(f"Image{i + 1}:<image>\n" for i in range(len(images)))
    return sample(name, images, f"{header}In Image{target + 1} , what is on the left ?", regions, target, "sequence")


def grid(name: str) -> Sample:
    regions = [
        Region(image=0, box=(0, 40, 448, 488), label="Image1"),
        Region(image=0, box=(488, 40, 936, 488), label="Image2"),
    ]
    return sample(name, ["grid.png"], "<image>\nIn Image2 , what is on the left ?", regions, 1, "grid")


def pic_in_pic(name: str) -> Sample:
    regions = [
        Region(image=0, box=(0, 0, 120, 90), label="Image1"),
        Region(image=0, box=(18, 14, 102, 77), label="Image2"),
    ]
    return sample(name, ["pip.png"], "<image>\nIn the image in the image , what is on the left ?", regions, 1, "pic_in_pic")


def single(name: str) -> Sample:
    return sample(name, ["a.png"], "<image>\nwhat is on the left ?", [Region(image=0, label="Image1")], 0, "single")


def open_without(missing: str) -> Callable[[str], Image.Image]:
    """Opens every picture but one, which is not there."""

    def opened(name: str) -> Image.Image:
        if name == missing:
            raise DataError(f"{name}: no such file")
        return open_image(name)

    return opened


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """Builders of models, pictures and samples."""
    return SimpleNamespace(
        build=build,
        families=list(tiny_models.BUILDERS),
        picture=picture,
        open_image=open_image,
        open_without=open_without,
        sequence=sequence,
        grid=grid,
        pic_in_pic=pic_in_pic,
        single=single,
        tokenizer=tiny_models.tokenizer,
        text=tiny_models.TEXT,
        vision=tiny_models.VISION,
    )
