"""Turn single-image instruction data into multi-image data: sequences, grids, pic-in-pic."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mia_augment.api import augment
    from mia_augment.compose import Composed, GridStyle, compose_grid, compose_pic_in_pic
    from mia_augment.dataset import Row, read_rows
    from mia_augment.pictures import open_picture
    from mia_augment.records import Region, Sample, Skipped
    from mia_augment.settings import AugmentSettings
    from mia_augment.stage import augment_dataset

_HOMES = {
    "augment": "api",
    "augment_dataset": "stage",
    "AugmentSettings": "settings",
    "Composed": "compose",
    "compose_grid": "compose",
    "compose_pic_in_pic": "compose",
    "GridStyle": "compose",
    "open_picture": "pictures",
    "read_rows": "dataset",
    "Region": "records",
    "Row": "dataset",
    "Sample": "records",
    "Skipped": "records",
}

__all__ = [
    "AugmentSettings",
    "Composed",
    "GridStyle",
    "Region",
    "Row",
    "Sample",
    "Skipped",
    "augment",
    "augment_dataset",
    "compose_grid",
    "compose_pic_in_pic",
    "open_picture",
    "read_rows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
