"""Places of a sample's parts: whole pictures of a sequence, the tokens that see a box of a composed one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mia_augment import Sample

from mia_attention.causes.prompt_places import PromptPlaces
from mia_attention.hallucinations import nested_regions
from mia_attention.measure.token_weights import Columns
from mia_attention.models.inputs import Encoded

MOSTLY = 0.5
"""A visual token is a part's where more than this share of its pixels lies in the part's box."""


def part_places(samples: Sequence[Sample], columns: Sequence[Columns], encoded: Encoded) -> PromptPlaces:
    """Places of each sample's parts in left-padded prompts; a part that holds another one counts without it."""
    marked = [_parts(sample, column) for sample, column in zip(samples, columns, strict=True)]
    return PromptPlaces(marked, torch.full((len(marked),), encoded.prompt_length))


def _parts(sample: Sample, columns: Columns) -> torch.Tensor:
    """(parts, length) bool; no token for a part whose box cannot be mapped."""
    inside = columns.weights[:, columns.images :].T > MOSTLY
    whole = torch.tensor([region.box is None for region in sample.regions])
    inside = inside & (whole[:, None] | torch.tensor(columns.mapped))
    for outer, inner in nested_regions(sample):
        inside[outer] &= ~inside[inner]
    return inside
