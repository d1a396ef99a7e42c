"""What some models add to the logits of attention: a number to each of them, or one more that belongs to no key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from mia_augment import ModelError
from torch import Tensor

from mia_attention.capture.weights import visible
from mia_attention.models.layer_call import Call

BIAS = "position_bias"
"""Keyword by which a module hands over what is added to its logits."""
SINKS = ("s_aux", "sinks")
"""Keywords by which it hands over a logit that belongs to no key."""


def sink_of(kwargs: dict[str, Any]) -> Tensor | None:
    """The logit beside those of the keys, by either name: of each head (GPT-OSS), or of each query and head (Inkling 2)."""
    found = next((kwargs[name] for name in SINKS if kwargs.get(name) is not None), None)
    return None if found is None else found.detach().view(1, -1, 1, 1) if found.dim() == 1 else found.detach()


def biased(call: Call, bias: Tensor) -> Call:
    """The call with a number added to each of its logits (relative positions, as Inkling's) told by its mask.

    Args:
        bias: (batch | 1, heads, q_len, >= k_len).
    """
    if call.softcap is not None:
        raise ModelError("attention with both a cap on its logits and a bias added to them is not supported")
    q_len, k_len = call.query.shape[2], call.key.shape[2]
    rows = torch.arange(q_len, device=call.query.device)
    seen = visible(call.mask, rows, q_len, k_len, causal=call.causal, flash=call.flash, window=call.window)
    bias = bias.detach()[..., :k_len]
    if seen is None:
        return replace(call, mask=bias)
    if seen.dtype == torch.bool:
        return replace(call, mask=bias.masked_fill(~seen, torch.finfo(bias.dtype).min))
    return replace(call, mask=bias + seen)
