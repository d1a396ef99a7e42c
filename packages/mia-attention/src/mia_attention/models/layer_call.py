"""What an attention layer was called with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from mia_augment import ModelError
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One call of one layer's attention.

    Attributes:
        query: (batch, heads, q_len, dim), after rotation.
        key, value: (batch, key_heads, k_len, dim), the cache's content included.
        mask: as given to the implementation, see `mia_attention.capture.weights.visible`.
        scaling: of the dot products.
        causal: whether the implementation masks the future by itself where there is no 4D mask.
        flash: whether the implementation is a flash-attention kernel.
        sink: a further logit of each query that belongs to no key, (1 | batch, heads, q_len | 1, 1); None: there is none.
        softcap, window: of the logits and of the keys, None: no such limit.
        output: what the implementation returned, (batch, q_len, heads, dim), within the graph that autograd keeps; None: not
            known (models with an adapter).
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
    sink: Tensor | None = None
    output: Tensor | None = None

    def of_rows(self, rows: Tensor | slice) -> Call:
        """The call with some of its queries alone; its mask stays as it is."""
        sink = self.sink if self.sink is None or self.sink.shape[2] == 1 else self.sink[:, :, rows]
        return replace(self, query=self.query[:, :, rows], sink=sink)


class Observer(Protocol):
    def __call__(self, call: Call) -> None: ...


class Edit(Protocol):
    """What changes one layer's attention while it runs."""

    def mask(self, call: Call) -> Tensor | None:
        """The mask to be used instead, bool or to be added, (batch | 1, heads | 1, q_len, k_len); None: as it is.

        Called once for each call of the layer, before it is computed.
        """
        ...

    def output(self, output: Tensor) -> Tensor:
        """The attention's output to go on with, (batch, q_len, heads, dim)."""
        ...


def check_growing(call: Call, seen: int, past: int = 0) -> None:
    """Refuse a call of a layer that does not continue the sequence of the calls before it.

    Args:
        call: the next call.
        seen: positions before it, `past` included.
        past: positions that a filled cache held before the first call.

    Raises:
        ModelError: another sequence begins, no cache grows, or the cache holds something else than `past` positions.
    """
    q_len, k_len = call.query.shape[2], call.key.shape[2]
    if seen > past:
        if k_len <= q_len:
            raise ModelError(
                "a second sequence began, or generation runs without a cache; expected one sequence with a growing cache: "
                "open a capture for each call of generate; see docs/errors.md#one-capture-one-sequence"
            )
        return
    expected = past + q_len
    if k_len > expected and _sees(call, expected):
        raise ModelError(
            f"the cache holds more than {past} positions before the first captured call: "
            "capture_attention(..., past=cache.get_seq_length()) reads on from there; rollout needs all positions to pass; "
            "see docs/errors.md#one-capture-one-sequence"
        )
    if k_len < expected and call.window is None:
        raise ModelError(f"past: expected a cache of {past} positions, got {k_len - q_len}")


def _sees(call: Call, position: int) -> bool:
    """Whether the call's last query sees keys from `position` on (in a static cache nothing is written there yet)."""
    if call.mask is None:  # SDPA without a mask is causal from the first key on
        return not (call.causal and call.query.shape[2] > 1 and not call.flash)
    if call.mask.dim() == 2:
        return call.mask.shape[-1] > position
    last = call.mask[:, :, -1, position : call.key.shape[2]]
    return bool((last if last.dtype == torch.bool else last > torch.finfo(last.dtype).min / 2).any())
