"""From attention spread over positions to the record of where a model looked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mia_augment import FORMATS, Attention, Readout, Rows, Sample
from torch import Tensor

from mia_attention.measure.ratio import region_ratio, sequence_ratio
from mia_attention.measure.token_weights import Columns

ABOUT_SEVERAL = "the question is about several pictures: none is the target"
"""Why there is no ratio for the formats whose rows share a question."""


def measure(
    sample: Sample, spread: Tensor, columns: Columns, *, readout: Readout, rows: Rows, sinks: Tensor | None = None
) -> Attention:
    """Masses of images and regions, and the paper's ratio or the reason why there is none.

    Args:
        sample: whose target counts.
        spread: (length,) mean attention of its rows over the prompt's positions, on the CPU.
        columns: which positions belong to which image and region.
        readout, rows: from what `spread` was read.
        sinks: (length,) bool, from `find_sinks` or `massive_prompts`: the ratio is also measured without these positions.
    """
    masses = torch.matmul(spread, columns.weights).tolist()
    image_mass, region_mass = masses[: columns.images], masses[columns.images :]
    ratio, reason = ratio_of(sample, image_mass, region_mass, columns)
    without = None
    if sinks is not None and ratio is not None:
        kept = columns.without(sinks)
        masses = torch.matmul(spread, kept.weights).tolist()
        without, _ = ratio_of(sample, masses[: columns.images], masses[columns.images :], kept)
    return Attention(
        layer=readout,
        rows=rows,
        region_mass=region_mass if columns.mapped else [],
        image_mass=image_mass,
        region_tokens=columns.tokens if columns.mapped else [],
        ratio=ratio,
        reason=reason,
        ratio_without_sinks=without,
    )


def ratio_of(
    sample: Sample, image_mass: Sequence[float], region_mass: Sequence[float], columns: Columns
) -> tuple[float | None, str | None]:
    """The paper's ratio of a sample, or None and why not.

    Whole images (sequences) compare means per visual token; a box compares its mass with the whole picture's.
    """
    if len(sample.regions) < 2:
        return None, "a single picture: nothing to compare with"
    if FORMATS[sample.format].shared is not None:
        return None, ABOUT_SEVERAL
    if not columns.mapped:
        return None, "boxes cannot be mapped to the visual tokens of this model family"
    region = sample.regions[sample.target]
    if columns.tokens[sample.target] == 0:
        return None, f"no visual token sees {region.label}: it was cropped away"
    if region.box is None:
        ratio = sequence_ratio(region_mass, columns.tokens, sample.target)
    else:
        ratio = region_ratio(region_mass[sample.target], image_mass[region.image])
    return (ratio, None) if ratio is not None else (None, "no attention on any visual token")


def find_sinks(spread: Tensor, columns: Columns, factor: float) -> Tensor:
    """Positions of visual tokens that get more than `factor` times the mean of their image's tokens, (length,) bool."""
    sinks = torch.zeros(len(spread), dtype=torch.bool)
    for index in range(columns.images):
        places = columns.weights[:, index] > 0
        sinks |= places & (spread > factor * spread[places].mean())
    return sinks
