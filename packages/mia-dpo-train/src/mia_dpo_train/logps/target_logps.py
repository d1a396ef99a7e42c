"""Log-probs of given tokens without ever holding the logits of all of them: the output head runs piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mia_augment import MOST_LOGITS, before_the_head, logits_at, text_config
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mia_dpo_train.models.facts import base_model

OutputHead = Callable[[Tensor], Tensor]
"""From what the output head is given, (tokens, width), to logits, (tokens, vocabulary)."""


def few_logits(model: Any, tokens: int) -> bool:
    """Whether the logits of so many tokens may stand in memory together."""
    return tokens * getattr(text_config(base_model(model)), "vocab_size", 0) <= MOST_LOGITS


def states_at(model: Any, positions: Tensor, inputs: Mapping[str, Any]) -> tuple[Tensor, OutputHead | None]:
    """What predicts the tokens behind some positions of a batch, (rows, positions, ..): logits, or where there would be too
    many of them, what the output head is given, with the head.
    """
    rows = inputs["input_ids"].shape[0]
    if not few_logits(model, rows * len(positions)):
        found = before_the_head(model, inputs, positions, use_cache=False)
        if found is not None:
            return found[0].logits, found[1]
    return logits_at(model, positions, inputs, use_cache=False), None


def outputs_of(model: Any, inputs: Mapping[str, Any], *, few: bool, **keywords: Any) -> tuple[Any, OutputHead | None]:
    """A model's outputs: with logits where those are few, else with what the output head is given instead, and the head."""
    found = None if few else before_the_head(model, inputs, **keywords)
    return found or (model(**inputs, **keywords), None)


def summed_logps(states: Tensor, targets: Tensor, mask: Tensor, head: OutputHead | None = None) -> Tensor:
    """Sum of the targets' log-probs, in fp32 whatever the model computes in: (rows,).

    Args:
        states: logits that predict each target, (rows, tokens, vocabulary); with `head`, what it is given instead.
        targets: token ids, (rows, tokens).
        mask: True where a target counts, (rows, tokens).
        head: run on what counts alone, in pieces.
    """
    if head is None:
        return (target_logps(states.flatten(0, 1), targets.flatten()).view_as(targets) * mask).sum(1)
    found = target_logps(states[mask], targets[mask], head)
    return torch.zeros(mask.shape, device=found.device).masked_scatter(mask, found).sum(1)


def target_logps(states: Tensor, targets: Tensor, head: OutputHead | None = None) -> Tensor:
    """log p(target) = logit(target) - logsumexp(logits), in fp32: (tokens,).

    With a head, no more than `MOST_LOGITS` logits at a time; the backward pass makes those of each piece again, so that
    gradients are those of the whole computation.
    """
    if head is None:
        return _logps(states, targets)
    if not len(targets):
        return states.new_zeros(0, dtype=torch.float32) + states.sum() * 0
    with torch.no_grad():
        vocabulary = head(states[:1]).shape[-1]
    size = max(1, MOST_LOGITS // vocabulary)

    def piece(some: Tensor, wanted: Tensor) -> Tensor:
        return _logps(head(some), wanted)

    pieces = zip(states.split(size), targets.split(size), strict=True)
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(piece, *each, use_reentrant=False, preserve_rng_state=False) for each in pieces])
    return torch.cat([piece(*each) for each in pieces])


def _logps(logits: Tensor, targets: Tensor) -> Tensor:
    return -F.cross_entropy(logits.float(), targets, reduction="none")
