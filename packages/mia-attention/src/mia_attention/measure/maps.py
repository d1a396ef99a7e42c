"""Answers together with maps of where the model looked on each picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from mia_augment import Box, ModelError, Sample, ScoredSample, Skipped
from mia_augment.images import OpenImage
from numpy.typing import NDArray
from PIL import Image

from mia_attention.answering.batches import run_in_order
from mia_attention.measure.attention_maps import CELLS, cell_masses
from mia_attention.models.box_coverage import BoxCoverage
from mia_attention.scoring.scorer import Prepared, Scorer, scored_sample
from mia_attention.settings import ScoreSettings


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


def look_at(
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
    [found] = look_at_all([sample], model, processor, settings, open_image=open_image, cells=cells)
    if isinstance(found, Skipped):
        raise ModelError(f"sample {sample.id}: {found.reason}")
    return found


def look_at_all(
    samples: Sequence[Sample],
    model: Any,
    processor: Any,
    settings: ScoreSettings,
    *,
    open_image: OpenImage,
    cells: int = CELLS,
    scorer: Scorer | None = None,
) -> Iterator[Look | Skipped]:
    """Answer samples and map their attention, in input order; or say why one has no map.

    Args:
        samples, model, processor, settings, open_image, cells: as for `look_at`.
        scorer: of these settings, from an earlier call: it remembers where the tokens of pictures lie.

    Raises:
        ModelError: the model family's tokens cannot be mapped, or as `mia_attention.score`.
    """
    scorer = scorer or Scorer(model, processor, settings, open_image)
    run = partial(_looks, scorer, cells)
    yield from run_in_order(samples, settings.batch_size, scorer.prepare, run, lambda sample: sample)


def _looks(scorer: Scorer, cells: int, prepared: Prepared) -> list[Look | Skipped]:
    if prepared.encoded is None:
        return prepared.usable.in_order([])
    results: list[Look | Skipped] = []
    responses, spreads = scorer.spread(prepared)
    for index, (sample, spread) in enumerate(zip(prepared.samples, spreads[0], strict=True)):
        attention = scorer.attention(index, prepared, spread)
        if not attention.image_mass:
            results.append(Skipped(id=sample.id, reason=attention.reason or "no attention was measured"))
            continue
        pictures, places = prepared.views[index], prepared.encoded.image_tokens[index]
        several = len(pictures) > 1
        maps = [
            cell_masses(
                spread[tokens.cpu()].double().numpy(), picture.size, coverages(scorer.coverage, len(tokens), several), cells
            )
            for tokens, picture in zip(places, pictures, strict=True)
        ]
        results.append(Look(scored_sample(sample, responses[index], attention), pictures, maps))
    return prepared.usable.in_order(results)


def coverages(coverage: BoxCoverage, tokens: int, several: bool) -> Any:
    """How much of a box each of one picture's tokens sees, as `cell_masses` asks for it."""

    def of_box(size: tuple[int, int], box: Box) -> NDArray[np.float64]:
        share: NDArray[np.float64] = coverage(size, box, tokens=tokens, several=several).double().numpy()
        return share

    return of_box
