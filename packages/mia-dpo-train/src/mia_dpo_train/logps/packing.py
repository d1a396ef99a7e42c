"""Shared-prefix packing: prompt, chosen and rejected answers in one sequence, as if each answer stood alone after the prompt.

Columns are [prompt, padded on the left][chosen, padded on the right][rejected, padded on the right], and further rejected ones
likewise. All answers take the positions after the prompt; a mask keeps each from seeing the others.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mia_dpo_train.data.encode import PairBatch
from mia_dpo_train.models.facts import ModelFacts, base_model, type_name

PAD, PROMPT, CHOSEN = -1, 0, 1
"""Parts of the packed sequence; rejected answers are 2, 3 .."""


def prompt_positions(model: Any, facts: ModelFacts, batch: PairBatch) -> tuple[Tensor, Tensor]:
    """Position ids of the prompt, (axes, pairs, prompt) with 3 axes for M-RoPE and 1 otherwise, and the next one: (pairs,)."""
    grid = batch.vision.get("image_grid_thw")
    mask = batch.prompt_mask
    if facts.mrope and grid is not None:
        positions, _ = base_model(model).model.get_rope_index(
            batch.prompt, image_types(facts, batch), image_grid_thw=grid, attention_mask=mask.long()
        )
        positions = positions.to(batch.prompt.device)
        following = positions.masked_fill(~mask, -1).amax(dim=(0, 2)) + 1
        return positions, following
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    axes = 3 if facts.mrope else 1
    return positions.expand(axes, -1, -1), mask.sum(1)


def image_types(facts: ModelFacts, batch: PairBatch) -> Tensor | None:
    """Which prompt tokens stand for images, where the processor says so: (pairs, prompt)."""
    return batch.types.get(facts.types or type_name(batch.types) or "")


def answer_positions(following: Tensor, width: int, axes: int) -> Tensor:
    """Positions of an answer that starts right after the prompt: (axes, pairs, width)."""
    offsets = torch.arange(width, device=following.device)
    return (following[:, None] + offsets).expand(axes, -1, -1)


def packed_positions(model: Any, facts: ModelFacts, batch: PairBatch) -> Tensor:
    """Position ids of the packed sequence: (axes, pairs, tokens)."""
    prompt, following = prompt_positions(model, facts, batch)
    answers = [answer_positions(following, tokens.shape[1], prompt.shape[0]) for tokens, _ in batch.answers]
    return torch.cat([prompt, *answers], dim=2)


def segments(batch: PairBatch) -> Tensor:
    """Which part every column of the packed sequence belongs to: (pairs, tokens)."""
    parts = [(batch.prompt_mask, PROMPT), *((mask, number) for number, (_, mask) in enumerate(batch.answers, CHOSEN))]
    return torch.cat([torch.where(mask, part, PAD) for mask, part in parts], dim=1)


def branch_index(batch: PairBatch) -> Tensor:
    """Place of every token in its own branch (prompt + one answer), by which a sliding window is measured: (pairs, tokens)."""
    start = batch.prompt.shape[1]
    widths = [tokens.shape[1] for tokens, _ in batch.answers]
    device = batch.prompt.device
    places = [torch.arange(start, device=device), *(start + torch.arange(width, device=device) for width in widths)]
    return torch.cat(places).expand(batch.prompt.shape[0], -1)


def image_blocks(types: Tensor) -> Tensor:
    """Number of the image that a token belongs to, -1 for text: (pairs, tokens). An image is a run of tokens of type 1."""
    image = types == 1
    start = image & ~F.pad(image, (1, 0))[:, :-1]
    return torch.where(image, start.cumsum(1) - 1, -1)


def blocks(facts: ModelFacts, batch: PairBatch) -> Tensor | None:
    """Tokens with the same number >= 0 attend to each other in both directions: (pairs, tokens); None: purely causal."""
    types = image_types(facts, batch)
    if facts.blocks == "none" or types is None:
        return None
    prompt = image_blocks(types) if facts.blocks == "images" else torch.where(types == 0, 0, -1)
    answers = sum(tokens.shape[1] for tokens, _ in batch.answers)
    return F.pad(prompt, (0, answers), value=-1)


def prefix_mask(parts: Tensor, block: Tensor | None = None, window: int | None = None, place: Tensor | None = None) -> Tensor:
    """Who attends to whom in the packed sequence: bool (pairs, 1, query, key), True = attends.

    A token sees itself and earlier tokens of the prompt and of its own answer. Padding is seen by padding alone.
    """
    # The rejected answer stands behind the chosen one, and a causal mask alone would let it see that: only keys of the prompt
    # and of the query's own part stay. Padding is a part that sees itself, since a softmax over no key at all would give NaN.
    order = torch.arange(parts.shape[1], device=parts.device)
    visible = (order[:, None] >= order[None, :])[None]
    if window is not None and place is not None:
        visible = visible & (place[:, :, None] - place[:, None, :] < window)
    if block is not None:
        visible = visible | ((block[:, :, None] == block[:, None, :]) & (block[:, :, None] >= 0))
    same_branch = (parts[:, None, :] == PROMPT) | (parts[:, None, :] == parts[:, :, None])
    return (visible & same_branch)[:, None]


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where attended, the smallest number elsewhere.

    Eager attention adds its mask (a bool one would be silently wrong). SDPA takes both, but turns a bool mask into numbers
    anew in every layer and keeps each of them for the backward pass; one made here is shared by all layers.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def packed_masks(facts: ModelFacts, batch: PairBatch, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """Mask of the packed sequence, to be added to attention scores of this type, or one per kind of layer."""
    parts, block = segments(batch), blocks(facts, batch)

    def mask(window: int | None) -> Tensor:
        return additive(prefix_mask(parts, block, window, branch_index(batch)), dtype)

    if facts.mask_per_layer_type:
        return {"full_attention": mask(None), "sliding_attention": mask(facts.window)}
    return mask(facts.window)
