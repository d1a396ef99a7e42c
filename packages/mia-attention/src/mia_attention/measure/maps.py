"""Attention as a picture: how much of it fell on each cell of a raster laid over an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mia_augment import ModelError, Sample, ScoredSample
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mia_attention.answering.responses import OpenImage
from mia_attention.models.box_coverage import BoxCoverage
from mia_attention.scoring.scorer import Scorer, scored_sample
from mia_attention.settings import ScoreSettings

CELLS = 16


@dataclass(frozen=True)
class Look:
    """One answer and where the model looked.

    Attributes:
        scored: the sample with its answer and measures.
        pictures: what the model saw.
        maps: per picture the attention on each cell, (rows, columns), parts of the whole row's attention.
    """

    scored: ScoredSample
    pictures: list[Image.Image]
    maps: list[NDArray[np.float64]]


def look(
    sample: Sample, model: Any, processor: Any, settings: ScoreSettings, *, open_image: OpenImage, cells: int = CELLS
) -> Look:
    """Answer one sample and map its attention onto its pictures.

    Args:
        sample: one sample.
        model, processor, settings, open_image: as for `mia_attention.score`.
        cells: raster cells along each picture's longer side.

    Raises:
        ModelError: the picture cannot be opened, the answer has no row to read, or the model family's tokens cannot be mapped.
    """
    scorer = Scorer(model, processor, settings, open_image)
    prepared = scorer.prepare([sample])
    if prepared.encoded is None:
        raise ModelError(f"sample {sample.id}: {prepared.skipped[0].reason}")
    responses, spreads = scorer.spread(prepared)
    attention = scorer.attention(0, prepared, spreads[0][0])
    if not attention.image_mass:
        raise ModelError(f"sample {sample.id}: {attention.reason}")
    coverage = BoxCoverage(model, processor)
    pictures = prepared.views[0]
    places = prepared.encoded.image_tokens[0]
    maps = [
        cell_masses(spreads[0][0, positions.cpu()], picture.size, coverage, cells=cells, several=len(pictures) > 1)
        for positions, picture in zip(places, pictures, strict=True)
    ]
    return Look(scored_sample(sample, responses[0], attention), pictures, maps)


def cell_masses(
    tokens: Tensor, size: tuple[int, int], coverage: BoxCoverage, *, cells: int, several: bool
) -> NDArray[np.float64]:
    """Share a picture's attention out to the cells of a raster: each token's goes to the cells it sees.

    Args:
        tokens: attention on each of the picture's visual tokens, (tokens,).
        size: of the picture, (width, height) px.
        coverage: of boxes.
        cells: along the longer side.
        several: whether the prompt holds several pictures.

    Returns:
        (rows, columns); the sum is the attention on tokens that see any pixel.
    """
    step = max(size) / cells
    columns, rows = (max(1, min(round(side / step), side)) for side in size)
    seen = np.stack([coverage(size, box, tokens=len(tokens), several=several).numpy() for box in _raster(size, columns, rows)])
    total = seen.sum(0)
    shares = np.divide(seen, total, out=np.zeros_like(seen), where=total > 0)
    masses: NDArray[np.float64] = (shares @ tokens.double().numpy()).reshape(rows, columns)
    return masses


def _raster(size: tuple[int, int], columns: int, rows: int) -> list[tuple[int, int, int, int]]:
    """Boxes of all cells, row by row."""
    width, height = size
    across = [round(index * width / columns) for index in range(columns + 1)]
    down = [round(index * height / rows) for index in range(rows + 1)]
    return [(across[c], down[r], across[c + 1], down[r + 1]) for r in range(rows) for c in range(columns)]
