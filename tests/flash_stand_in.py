"""An attention function that takes what a flash kernel takes and nothing else, for machines that have no such kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import transformers as hf
from transformers.masking_utils import flash_attention_mask

NAME = "flash_lookalike"


@contextlib.contextmanager
def flash_stand_in(config: Any) -> Iterator[list[int]]:
    """Models of a (text) configuration run on it; gives the layers that reached it, one after the other.

    As in flash attention, padding comes as (batch, keys) or there is no mask at all, and causality is aligned to the last key.
    """
    called: list[int] = []

    def kernel(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float = 1.0, **_: Any) -> Any:
        called.append(module.layer_idx)
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        q_len, k_len = query.shape[2], key.shape[2]
        allowed = torch.ones(q_len, k_len, dtype=torch.bool).tril(k_len - q_len)
        if mask is not None:
            assert mask.shape == (len(query), k_len)
            allowed = allowed & mask[:, None, None].bool()
        logits = (query @ key.transpose(-1, -2) * scaling).masked_fill(~allowed, -1e9)
        return (logits.softmax(-1) @ value).transpose(1, 2), None

    hf.AttentionInterface.register(NAME, kernel)
    hf.AttentionMaskInterface.register(NAME, flash_attention_mask)
    before = config._attn_implementation
    config._attn_implementation_internal = NAME  # the setter would look for a real kernel
    try:
        yield called
    finally:
        config._attn_implementation_internal = before
