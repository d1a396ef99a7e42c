"""Attention weighted otherwise: what some rows pay to some keys, multiplied before each row is normalised again.

    A'_ij = w_ij A_ij / sum over k of w_ik A_ik

A weight of 0 hides a key. It is done by adding log w to the logits, so that any attention that takes a mask computes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mia_augment import ConfigError, ModelError
from torch import Tensor

from mia_attention.capture.weights import visible
from mia_attention.models.layer_call import Call, check_growing


@dataclass(frozen=True)
class Reweighting:
    """Which rows pay which keys how many times as much attention.

    Attributes:
        rows: (batch, length) bool: query positions in the padded sequence.
        keys: (batch, length) bool: key positions.
        weight: 0: the rows do not see the keys; 1: nothing changes.
        later: positions behind `length`, as those of an answer yet to be generated, are rows too.
    """

    rows: Tensor
    keys: Tensor
    weight: float = 0.0
    later: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ConfigError(f"expected a weight of attention of 0 or more, got {self.weight}")

    def area(self, positions: Tensor, keys: Tensor) -> Tensor:
        """(batch, rows, keys) bool: where it applies among some query and key positions."""
        return _at(self.rows, positions, self.later)[:, :, None] & _at(self.keys, keys, later=False)[:, None, :]


def _at(marked: Tensor, positions: Tensor, later: bool) -> Tensor:
    """Values of (batch, length) at some positions, (batch, positions); `later` behind the end."""
    marked = marked.to(positions.device)
    length = marked.shape[1]
    found = marked[:, positions.clamp_max(length - 1)]
    return torch.where(positions < length, found, torch.tensor(later, device=positions.device))


def reweighted_mask(
    mask: Tensor | None,
    changes: Sequence[Reweighting],
    positions: Tensor,
    keys: Tensor,
    *,
    dtype: torch.dtype,
    heads: Tensor | None = None,
) -> Tensor | None:
    """The mask with which attention is weighted otherwise; a position always sees itself.

    Args:
        mask: True where a row may look, or a number to add; (batch | 1, heads | 1, rows, keys). None: it may look anywhere.
        changes: what is weighted otherwise; where they meet, their weights multiply.
        positions, keys: of the rows and keys in the padded sequence, (rows,) and (keys,).
        dtype: of a mask that is added.
        heads: (heads,) bool: those that are changed; None: all.

    Returns:
        bool where keys are only hidden from a bool mask, else to be added; None: nothing changes among these rows and keys.
    """
    hidden = torch.zeros(1, len(positions), len(keys), dtype=torch.bool, device=positions.device)
    bias: Tensor | None = None
    for change in changes:
        area = change.area(positions, keys)
        if change.weight == 0:
            hidden = hidden | area
        elif change.weight != 1 and bool(area.any()):
            bias = (0.0 if bias is None else bias) + area * math.log(change.weight)
    hidden = hidden & (positions[:, None] != keys)
    if bias is None and not bool(hidden.any()):
        return None
    hidden, bias = hidden[:, None], None if bias is None else bias[:, None].to(dtype)
    if heads is not None:
        mine = heads.to(positions.device)[None, :, None, None]
        hidden, bias = hidden & mine, None if bias is None else bias * mine
    if mask is None:
        mask = torch.ones(1, 1, len(positions), len(keys), dtype=torch.bool, device=positions.device)
    if mask.dtype == torch.bool and bias is None:
        return mask & ~hidden
    lowest = torch.finfo(dtype).min
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, lowest)
    added = mask if bias is None else (mask + bias).clamp_min(lowest)
    return added.masked_fill(hidden, lowest)


class LayerReweighting:
    """Edit of one layer: counts the positions that pass and weights their attention otherwise."""

    def __init__(self, changes: Sequence[Reweighting], *, heads: Sequence[int] | None = None, past: int = 0) -> None:
        self._changes = changes
        self._heads = heads
        self._past = past
        self._seen = past

    def mask(self, call: Call) -> Tensor | None:
        batch, count, q_len, _ = call.query.shape
        k_len = call.key.shape[2]
        if q_len == k_len:  # a sequence begins
            self._seen = 0
        else:
            check_growing(call, self._seen, self._past)
        start = self._seen
        self._seen += q_len
        for change in self._changes:
            if len(change.rows) not in (1, batch):
                raise ModelError(
                    f"attention is to be changed in a batch of {len(change.rows)} prompts, the model runs {batch}; "
                    "see docs/errors.md#another-batch"
                )
        rows = torch.arange(q_len, device=call.query.device)
        keys = max(self._seen - k_len, 0) + torch.arange(k_len, device=call.query.device)
        heads = None
        if self._heads is not None:
            heads = torch.zeros(count, dtype=torch.bool)
            heads[list(self._heads)] = True
        seen = visible(call.mask, rows, q_len, k_len, causal=call.causal, flash=call.flash, window=call.window)
        return reweighted_mask(seen, self._changes, start + rows, keys, dtype=call.query.dtype, heads=heads)

    def output(self, output: Tensor) -> Tensor:
        return output
