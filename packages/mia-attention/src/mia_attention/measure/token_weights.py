"""Which visual tokens belong to a sample's images and regions, as weights of a captured row's columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mia_augment import DataError, Sample
from torch import Tensor

from mia_attention.models.box_coverage import BoxCoverage


@dataclass(frozen=True)
class Columns:
    """Weights of one sample's prompt positions.

    Attributes:
        weights: (length, images + regions) in 0..1: which positions are visual tokens of each image, and how much of each
            region's box they see.
        images: number of images.
        tokens: visual tokens of each region, boxes counted by what they cover.
        mapped: whether boxes could be mapped to tokens; if not, only whole images count.
    """

    weights: Tensor
    images: int
    tokens: list[float]
    mapped: bool

    def without(self, positions: Tensor) -> Columns:
        """The same, some positions (length,) left out."""
        weights = self.weights.masked_fill(positions[:, None], 0.0)
        return Columns(weights, self.images, weights[:, self.images :].sum(0).tolist(), self.mapped)


def columns_of(
    sample: Sample, image_tokens: Sequence[Tensor], sizes: Sequence[tuple[int, int]], length: int, coverage: BoxCoverage
) -> Columns:
    """Column weights of one sample.

    Args:
        sample: its regions say which boxes count.
        image_tokens: positions of each image's visual tokens.
        sizes: (width, height) of each image in pixels.
        length: of the padded prompt.
        coverage: of boxes, for the model at hand.

    Raises:
        DataError: a region's box does not lie in its picture.
    """
    count = len(image_tokens)
    weights = torch.zeros(length, count + len(sample.regions))
    for index, positions in enumerate(image_tokens):
        weights[positions, index] = 1.0
    mapped = all(region.box is None for region in sample.regions) or coverage.known
    for index, region in enumerate(sample.regions):
        positions = image_tokens[region.image]
        if region.box is None:
            weights[positions, count + index] = 1.0
        elif coverage.known:
            try:
                seen = coverage(sizes[region.image], region.box, tokens=len(positions), several=count > 1)
            except DataError as error:
                raise DataError(f"sample {sample.id}: region {region.label!r}: {error}") from error
            weights[positions, count + index] = seen
    return Columns(weights, count, weights[:, count:].sum(0).tolist(), mapped)
