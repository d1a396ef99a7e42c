"""Where the model looked, picture by picture, for the report's examples: read once, while the model is loaded anyway."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from mia_attention import ScoreSettings
from mia_augment import Box, Record, Sample, ScoredSample
from mia_augment.images import open_picture
from mia_augment.storage import (
    MANIFEST,
    Manifest,
    image_folders,
    only_writer,
    read_jsonl,
    relative_folders,
    resolve_image,
    write_jsonl,
    write_manifest,
)
from numpy.typing import NDArray
from PIL import Image

from mia_cli.terminal.display import Report

MAPS = "maps.jsonl"
CELLS = 16
"""Cells along a picture's longer side."""


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
    settings: ScoreSettings,
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

    with only_writer(out):
        (out / MANIFEST).unlink(missing_ok=True)
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
    settings: ScoreSettings,
    open_image: Callable[[str], Image.Image],
    progress: Report,
) -> Iterator[AttentionMap]:
    from mia_attention import readout_kind
    from mia_attention.models import BoxCoverage
    from mia_attention.scoring import Scorer

    model, processor = load()
    coverage = BoxCoverage(model, processor)
    if not chosen or not coverage.known:
        return
    scored_by = chosen[0].attention.layer
    mapped = readout_kind(scored_by).measure is None
    layer = scored_by if mapped else "middle"  # what measures answers has no map: the pictures show the paper's layer
    as_scored = settings.model_copy(update={"layer": layer, "confusions": False, "own_answer": False})
    scorer = Scorer(model, processor, as_scored, open_image)
    for start in range(0, len(chosen), settings.batch_size):
        batch = chosen[start : start + settings.batch_size]
        prepared = scorer.prepare([Sample.model_validate(s.model_dump(include=set(Sample.model_fields))) for s in batch])
        if prepared.encoded is None:  # no picture of the batch can be opened any more
            continue
        _, spreads = scorer.spread(prepared)
        for index, sample in enumerate(prepared.samples):
            row, places, pictures = spreads[0][index], prepared.encoded.image_tokens[index], prepared.views[index]
            if row.any():
                masses = [
                    cell_masses(row[tokens.cpu()].double().numpy(), picture.size, _coverage_of(coverage, tokens, len(pictures)))
                    for tokens, picture in zip(places, pictures, strict=True)
                ]
                yield AttentionMap(id=sample.id, maps=relative_maps(masses))
        progress(min(start + settings.batch_size, len(chosen)), len(chosen))


def _coverage_of(coverage: Any, tokens: Any, pictures: int) -> Callable[[tuple[int, int], Box], NDArray[np.float64]]:
    """How much of a box each of a picture's tokens sees."""

    def seen(size: tuple[int, int], box: Box) -> NDArray[np.float64]:
        share: NDArray[np.float64] = coverage(size, box, tokens=len(tokens), several=pictures > 1).double().numpy()
        return share

    return seen


def cell_masses(
    tokens: NDArray[np.float64],
    size: tuple[int, int],
    seen: Callable[[tuple[int, int], Box], NDArray[np.float64]],
    cells: int = CELLS,
) -> NDArray[np.float64]:
    """Share the attention on a picture's tokens out to the cells of a raster.

    A token sees a rectangle, so its share in a cell is its share in the cell's column times that in the cell's row: columns
    and rows are looked up, not every cell.

    Args:
        tokens: attention on each visual token, (tokens,).
        size: of the picture, (width, height) px.
        seen: from (size, box) to the share of each token's pixels that lie in the box, (tokens,).
        cells: along the longer side.

    Returns:
        (rows, columns); the sum is the attention on tokens that see any pixel.
    """
    width, height = size
    step = max(size) / cells
    columns, rows = (max(1, min(round(side / step), side)) for side in size)
    across = [round(index * width / columns) for index in range(columns + 1)]
    down = [round(index * height / rows) for index in range(rows + 1)]
    in_column = _shares(np.stack([seen(size, (across[c], 0, across[c + 1], height)) for c in range(columns)], axis=1))
    in_row = _shares(np.stack([seen(size, (0, down[r], width, down[r + 1])) for r in range(rows)], axis=1))
    masses: NDArray[np.float64] = (in_row * tokens[:, None]).T @ in_column
    return masses


def _shares(seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """(tokens, strips), each token's row summing to 1, or to 0 for a token that sees nothing."""
    total = seen.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(seen, total, out=np.zeros_like(seen), where=total > 0)
    return shares


def relative_maps(masses: Sequence[NDArray[np.float64]]) -> list[list[list[float]]]:
    """Attention on the cells of several pictures, per area, in parts of the highest."""
    densities = [mass * mass.size for mass in masses]
    top = max((float(density.max()) for density in densities), default=0.0) or 1.0
    return [np.round(density / top, 3).tolist() for density in densities]
