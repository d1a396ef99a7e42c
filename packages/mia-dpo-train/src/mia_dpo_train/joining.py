"""Whether pairs may be put side by side: found by trying, since nothing in a processor or a model says so.

What a processor makes of one pair's pictures can usually be joined with another's along the first axis. Some outputs count over
the batch, though (Molmo2's `image_token_pooling` numbers the patches of all pictures): joined, they point at the first pair's.
"""

from __future__ import annotations

import torch
from mia_augment.prompting import refusal
from torch import Tensor

from mia_dpo_train.data.encode import Pictures, joined_vision
from mia_dpo_train.data.pair_set import PairSet

TRIED = 4
"""Pairs that are put side by side to find out."""
PIXEL_TOLERANCE = 1e-4
"""Rounding may differ with the number of pictures that are resized at once."""


def different_pairs(pairs: PairSet, count: int) -> list[int]:
    """Indices of the shortest pairs that differ in their pictures, those of different lengths first."""
    order = sorted(range(len(pairs)), key=lambda index: (pairs.lengths[index], index))
    chosen: list[int] = []
    for new_length in (True, False):
        for index in order:
            pictures = [pairs.pairs[other].images for other in chosen]
            lengths = [pairs.lengths[other] for other in chosen]
            unlike = pairs.pairs[index].images not in pictures and (not new_length or pairs.lengths[index] not in lengths)
            if len(chosen) < count and unlike:
                chosen.append(index)
    return chosen


def joining_problem(pairs: PairSet) -> str | None:
    """Which of the processor's outputs cannot be made of those of single pairs; None: each can."""
    chosen = different_pairs(pairs, TRIED)
    if len(chosen) < 2:
        return None
    joined = joined_vision([pairs[index] for index in chosen])
    try:
        together = pairs.encoder.vision([pairs.pairs[index] for index in chosen])
    except Exception as error:
        if refusal(error) is None:
            raise
        return None  # pairs of different sizes are refused together: there is but the joining
    different = sorted(name for name in joined if not _same(joined[name], together.get(name)))
    return ", ".join(different) or None


def _same(joined: Pictures, together: object) -> bool:
    if isinstance(joined, list):
        return joined == together
    if not isinstance(together, Tensor) or joined.shape != together.shape:
        return False
    if not joined.is_floating_point():
        return torch.equal(joined, together)
    return torch.allclose(joined, together, rtol=0, atol=PIXEL_TOLERANCE, equal_nan=True)
