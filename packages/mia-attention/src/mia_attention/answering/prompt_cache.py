"""Prompts run once, answers run on what is left of them: inputs with answers behind them, and caches to go on from."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mia_augment import ModelError, barred_tokens, text_config
from mia_augment.prompting import per_token
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from mia_attention.models.decoder import decoder_layers
from mia_attention.models.families import adapter_of


def append_answers(inputs: Mapping[str, Any], answers: Sequence[Sequence[int]]) -> tuple[dict[str, Any], Tensor]:
    """Prompts with answers behind them, padded on the right, so that positions count from 0 in every row.

    Returns:
        The model's inputs, and (batch,) how long each prompt is.
    """
    lengths = inputs["attention_mask"].sum(1)
    whole = dict(inputs)
    for name, values in per_token(inputs).items():
        rows = [
            torch.cat([row[row.shape[0] - int(length) :], _filled(name, answer, row)])
            for row, length, answer in zip(values, lengths, answers, strict=True)
        ]
        whole[name] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return whole, lengths


def _filled(name: str, answer: Sequence[int], like: Tensor) -> Tensor:
    """An answer's part of an input: its ids, ones for the mask, zeros (text) for token types; which pictures it sees as the
    prompt's last token does.
    """
    if like.dim() > 1:
        return like[-1:].expand(len(answer), *like.shape[1:])
    values = {"input_ids": list(answer), "attention_mask": [1] * len(answer)}.get(name, [0] * len(answer))
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def why_not_shared(model: Any, inputs: Mapping[str, Any], start: int) -> str | None:
    """Why answers cannot be run on a cache of their prompts' first `start` positions; None if they can."""
    if adapter_of(model) is not None or not _only_attention(model):
        return "a cache can be read on only in models all of whose layers are transformers' attention"
    barred = barred_tokens(model)
    if not barred:
        return "a cache can be read on only in models whose pictures are tokens of the prompt"
    if bool((inputs["input_ids"][:, start:] == barred[0]).any()):
        return "a prompt ends with its picture, whose last token is to be read"
    return None


def _only_attention(model: Any) -> bool:
    try:
        layers = decoder_layers(model)
    except ModelError:
        return False
    return len(layers) == max(layers) + 1


def why_not_cut(cache: Cache, prompts: int, start: int) -> str | None:
    """Why a cache of `prompts` sequences cannot be cut back to its first `start` positions; None if it can."""
    for index, layer in enumerate(cache.layers):
        if not isinstance(layer, DynamicLayer) or type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            return f"layer {index} is a {type(layer).__name__}, expected one that grows"
        if layer.keys is None or layer.get_seq_length() < start or layer.keys.shape[0] != prompts:
            return f"layer {index} does not hold {prompts} prompts of {start} positions"
        if isinstance(layer, DynamicSlidingWindowLayer) and layer.get_seq_length() >= layer.sliding_window:
            return f"layer {index} has a sliding window and has dropped its first keys"
    return None


def empty_cache(model: Any) -> Cache:
    """A cache that grows with whatever runs through the model's decoder."""
    return DynamicCache(config=text_config(model))


def fill(cache: Cache, model: Any, inputs: Mapping[str, Any], start: int) -> None:
    """Run each left-padded prompt's first `start` positions into an empty cache."""
    part = {**inputs, **{name: value[:, :start] for name, value in per_token(inputs).items()}}
    model(**part, position_ids=_positions(model, inputs)[..., :start], past_key_values=cache, use_cache=True)


def copied(cache: Cache) -> Cache:
    """A cache that grows by itself; what it holds so far is shared, not copied."""
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    return own


def cut(cache: Cache, start: int) -> Cache:
    """The first `start` positions of a cache; the cache itself stays as it is."""
    own = copied(cache)
    own.crop(start - cache.get_seq_length())
    return own


def go_on(
    model: Any, inputs: Mapping[str, Any], owners: Sequence[int], answers: Sequence[Sequence[int]], cache: Cache, start: int
) -> Any:
    """The model's output for what follows the first `start` positions of the prompts: their rest, and the answers.

    Args:
        inputs: left-padded prompts.
        owners: which prompt each answer is to.
        answers: token ids; shorter ones are padded on the right.
        cache: of the prompts' first `start` positions; it grows.

    Returns:
        Whatever the model returns for (answers, length - start + longest answer) tokens.
    """
    prompt_ids, prompt_mask = inputs["input_ids"][owners], inputs["attention_mask"][owners]
    ids = [torch.tensor(list(answer), dtype=prompt_ids.dtype) for answer in answers]
    tail = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(prompt_ids.device)
    lengths = torch.tensor([len(answer) for answer in answers], device=tail.device)
    steps = torch.arange(tail.shape[1], device=tail.device)
    real = (steps < lengths[:, None]).to(prompt_mask.dtype)
    positions = _positions(model, inputs)[..., owners, :]
    positions = torch.cat([positions, positions[..., -1:] + 1 + steps], -1)  # text follows: all axes count on
    if list(owners) != list(range(len(inputs["input_ids"]))):
        cache.batch_select_indices(torch.tensor(owners, device=tail.device))
    return model(
        input_ids=torch.cat([prompt_ids, tail], 1)[:, start:],
        attention_mask=torch.cat([prompt_mask, real], 1),
        position_ids=positions[..., start:],
        past_key_values=cache,
        use_cache=True,
    )


def _positions(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Position ids of left-padded prompts as `generate` makes them, (..., prompts, length)."""
    made: Tensor = model._prepare_position_ids_for_generation(inputs["input_ids"], dict(inputs))
    return made
