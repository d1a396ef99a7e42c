"""Each head's share of attention on the picture asked about, for many samples from one run of the model. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mia_augment import Attention, Sample

from mia_attention.measure.ratio import region_ratio, sequence_ratio

Head = tuple[int, int]
"""(layer, head), both from 0."""


@dataclass(frozen=True)
class HeadShares:
    """One sample's attention by head.

    Attributes:
        sample: what was asked.
        response: what the model answered.
        tokens: its token ids.
        by_head: what each head looked at.
    """

    sample: Sample
    response: str
    tokens: tuple[int, ...]
    by_head: Mapping[Head, Attention]

    def ratio(self, heads: Sequence[Head]) -> float | None:
        """The target's ratio of the mean over some heads, as the readout `heads` has it; None: it cannot be measured."""
        target = self.sample.target
        found = self._masses(heads)
        if found is None:
            return None
        regions, images, tokens = found
        region = self.sample.regions[target]
        if region.box is None:
            return sequence_ratio(regions, tokens, target)
        return region_ratio(regions[target], images[region.image])

    def found(self, heads: Sequence[Head]) -> float | None:
        """Share of the other pictures that get less attention per visual token than the target, ties half."""
        masses = self._masses(heads)
        if masses is None:
            return None
        density = [mass / count if count > 0 else 0.0 for mass, count in zip(masses[0], masses[2], strict=True)]
        mine, target = density[self.sample.target], self.sample.target
        won = [(mine > other) + 0.5 * (mine == other) for index, other in enumerate(density) if index != target]
        return sum(won) / len(won) if won else None

    def _masses(self, heads: Sequence[Head]) -> tuple[list[float], list[float], list[float]] | None:
        """Masses of regions and of images, mean over the heads, and the regions' tokens."""
        each = [self.by_head[head] for head in heads]
        if any(attention.ratio is None for attention in each):
            return None
        regions = [sum(values) / len(each) for values in zip(*(attention.region_mass for attention in each), strict=True)]
        images = [sum(values) / len(each) for values in zip(*(attention.image_mass for attention in each), strict=True)]
        return regions, images, each[0].region_tokens
