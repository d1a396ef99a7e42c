"""Attention sinks by massive activation, as published (Kang et al., arXiv 2503.03321), beside `find_sinks`' "10 x the mean".

A visual token is a sink where one of a few dimensions of its hidden state dwarfs the others:

    max over d in D of |x_d| / rms(x) >= tau

D are the dimensions in which the first token of the sequence, the language model's own sink, is massive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mia_attention.models.inputs import Encoded
from mia_attention.states.hidden_states import capture_states

TAU = 20.0
"""The published threshold, for hidden states of `PUBLISHED_WIDTH` dimensions."""
PUBLISHED_WIDTH = 4096


def sink_threshold(width: int) -> float:
    """The published threshold as the same share of a hidden state's length: tau / sqrt(4096) = 0.31 of it in one dimension.

    |x_d| / rms(x) is at most sqrt(width), so 20 itself can never be reached below 400 dimensions.

    >>> sink_threshold(4096)
    20.0
    """
    return float(TAU * (width / PUBLISHED_WIDTH) ** 0.5)


def sink_dimensions(states: Tensor, first: Tensor, tau: float | None = None) -> Tensor:
    """Dimensions in which the first token of any sequence is massive, (dimensions,).

    Args:
        states: (batch, length, width): what enters a layer.
        first: (batch,) position of each sequence's first real token.
        tau: by default `sink_threshold(width)`.
    """
    opening = _relative(states[torch.arange(len(states)), first.to(states.device)])
    limit = sink_threshold(states.shape[-1]) if tau is None else tau
    return (opening >= limit).any(0).nonzero()[:, 0]


def massive_sinks(states: Tensor, dimensions: Tensor, tau: float | None = None) -> Tensor:
    """Positions that are massive in one of some dimensions, (batch, length) bool; none where there are no dimensions.

    Args:
        states, tau: as for `sink_dimensions`.
        dimensions: from `sink_dimensions`.
    """
    if not len(dimensions):
        return torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device)
    limit = sink_threshold(states.shape[-1]) if tau is None else tau
    found: Tensor = _relative(states)[..., dimensions].max(-1).values >= limit
    return found


def massive_prompts(model: Any, encoded: Encoded, layers: Sequence[int]) -> dict[int, Tensor]:
    """Which positions of some prompts are massive where they enter each layer: by layer (batch, length) bool, on the CPU.

    One pass over the prompts, ended before the last of these layers. Each prompt's own first token says in which dimensions,
    so that what else is in the batch does not matter.

    Raises:
        ModelError: a layer does not exist, or the model has no decoder in transformers' shape.
    """
    first = encoded.inputs["attention_mask"].argmax(1)
    with torch.inference_mode(), capture_states(model, layers, stop=True) as states:
        model(**encoded.inputs, use_cache=False)
    found = {}
    for layer in layers:
        rows = states.at(layer).split(1)
        marked = [massive_sinks(row, sink_dimensions(row, place)) for row, place in zip(rows, first.split(1), strict=True)]
        found[layer] = torch.cat(marked).cpu()
    return found


def _relative(states: Tensor) -> Tensor:
    """|x_d| / rms(x)."""
    values = states.float()
    return values.abs() / values.pow(2).mean(-1, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
