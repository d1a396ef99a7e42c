"""Where the model looked, picture by picture, for the report's examples: read once, while the model is loaded anyway."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from mia_augment.errors import ModelError
from mia_augment.files import (
    Manifest,
    image_folders,
    read_jsonl,
    relative_folders,
    resolve_image,
    write_jsonl,
    write_manifest,
)
from mia_augment.pictures import open_picture
from mia_augment.records import Record, Sample, ScoredSample
from PIL import Image

from mia_cli.console import Report

logger = logging.getLogger(__name__)

MAPS = "maps.jsonl"


class AttentionMap(Record):
    """Where the model looked while it answered one sample, cell by cell."""

    id: str
    maps: list[list[list[float]]]
    """Per image: rows of cells, each its attention in parts of the sample's highest, 0..1."""


def read_maps(path: Path) -> dict[str, AttentionMap]:
    """Attention maps by sample id; none where they were not made."""
    return {record.id: record for record in read_jsonl(path, AttentionMap)} if path.is_file() else {}


def make_maps(
    chosen: Sequence[ScoredSample],
    scored: Path,
    load: Callable[[], tuple[Any, Any]],
    out: Path,
    settings: Any,
    key: dict[str, Any],
    progress: Report,
) -> Manifest:
    """Write `maps.jsonl` and a manifest.

    Args:
        chosen: samples to map.
        scored: the folder they come from, for their pictures.
        load: gives (model, processor).
        settings: the `ScoreSettings` they were scored with.
        key: what the maps depend on.
    """
    started = time.monotonic()
    folders = image_folders(scored)

    def open_image(name: str) -> Image.Image:
        return open_picture(resolve_image(name, folders))

    count = write_jsonl(out / MAPS, _maps(chosen, load, settings, open_image, progress))
    counts = {"maps": count, "without": len(chosen) - count}
    manifest = Manifest(
        stage="attention",
        version=version("mia-cli"),
        settings=settings.model_dump(mode="json"),
        inputs={"key": json.dumps(key, sort_keys=True)},
        image_folders=relative_folders(folders, to=out),
        counts=counts,
        seconds=round(time.monotonic() - started, 3),
    )
    write_manifest(out, manifest)
    return manifest


def _maps(
    chosen: Sequence[ScoredSample],
    load: Callable[[], tuple[Any, Any]],
    settings: Any,
    open_image: Callable[[str], Image.Image],
    progress: Report,
) -> Iterator[AttentionMap]:
    from mia_attention import look

    model, processor = load()
    for index, scored in enumerate(chosen, 1):
        sample = Sample.model_validate(scored.model_dump(include=set(Sample.model_fields)))
        try:
            seen = look(sample, model, processor, settings, open_image=open_image)
        except ModelError as error:  # no row to read, or a family whose tokens cannot be mapped: counted, shown without a map
            logger.info("%s", error)
            continue
        yield AttentionMap(id=sample.id, maps=relative_maps(seen.maps))
        progress(index, len(chosen))


def relative_maps(masses: Sequence[np.ndarray[Any, Any]]) -> list[list[list[float]]]:
    """Attention on the cells of several pictures, per area, in parts of the highest."""
    densities = [mass * mass.size for mass in masses]
    top = max((float(density.max()) for density in densities), default=0.0) or 1.0
    return [np.round(density / top, 3).tolist() for density in densities]
