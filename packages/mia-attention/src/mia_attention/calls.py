"""What an attention layer was called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One call of one layer's attention.

    Attributes:
        query: (batch, heads, q_len, dim), after rotation.
        key, value: (batch, key_heads, k_len, dim), the cache's content included.
        mask: as given to the implementation, see `mia_attention.weights.visible`.
        scaling: of the dot products.
        causal: whether the implementation masks the future by itself where there is no 4D mask.
        flash: whether the implementation is a flash-attention kernel.
        softcap, window: of the logits and of the keys, None: no such limit.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float
    causal: bool = True
    flash: bool = False
    softcap: float | None = None
    window: int | None = None


class Observer(Protocol):
    def __call__(self, call: Call) -> None: ...
