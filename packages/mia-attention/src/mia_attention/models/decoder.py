"""The self-attention layers of a model's language decoder, and which of them can see a whole prompt."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mia_augment import ModelError, barred_tokens, takes_pictures, text_config
from torch import nn

from mia_attention.models.families import family_of
from mia_attention.models.inputs import PLACES

logger = logging.getLogger(__name__)

PROJECTIONS = ("q_proj", "qkv_proj", "query_key_value", "Wqkv", "q_a_proj", "q_b_proj")
"""Attributes by which an attention module is known; linear attention and convolutions have none of them."""


def decoder_layers(model: Any) -> dict[int, nn.Module]:
    """Self-attention modules of the language decoder by layer index, in order.

    Layers without attention (linear attention, convolutions) are left out.

    Raises:
        ModelError: there is none, or the model keeps its images out of self-attention.
    """
    family = family_of(model)
    if family.adapter is not None:
        return dict(sorted(family.adapter.layers(model).items()))
    if (refused := why_unread(model)) is not None:
        raise ModelError(
            f"{model.config.model_type}: attention on images cannot be read, because {refused}; "
            "expected a model whose image tokens stand in the prompt (LLaVA, Qwen-VL, InternVL, ...). "
            "Its answers can be measured without attention: layer alone; see docs/errors.md#attention-that-cannot-be-read"
        )
    text = text_config(model)
    found: dict[int, nn.Module] = {}
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        index: Any = getattr(module, "layer_idx", None)
        is_attention = index is not None and any(hasattr(module, name) for name in PROJECTIONS)
        if is_attention and hasattr(config, "_attn_implementation") and _same_config(config, text):
            found[int(index)] = module
    if not found:
        raise ModelError(
            f"{type(model).__name__}: no decoder attention layer found that goes through transformers' attention interface; "
            "describe the model with mia_attention.register_adapter; see docs/errors.md#attention-that-cannot-be-read"
        )
    return dict(sorted(found.items()))


def why_unread(model: Any) -> str | None:
    """Why attention on a model's pictures cannot be read: they are no tokens of its decoder's prompt; None: they are."""
    family, text = family_of(model), text_config(model)
    if family.adapter is not None or family.refused is not None:
        return family.refused
    if getattr(model.config, "is_encoder_decoder", False):
        return "it is an encoder and a decoder: pictures stand in the encoder"
    if getattr(text, "cross_attention_layers", None):
        return "it reads images by cross-attention"
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not takes_pictures(inner) or barred_tokens(inner):
        return None
    placed = any(name.endswith(PLACES) for name in inspect.signature(inner.forward).parameters)
    return None if placed else "no token of the prompt stands for a picture"


def _same_config(config: Any, text: Any) -> bool:
    return config is text or type(config) is type(text)


def window(module: nn.Module) -> int | None:
    """Keys a sliding-attention layer sees at most; None: all of them."""
    size = getattr(module, "sliding_window", None)
    if size is None and getattr(module, "is_sliding", False):
        size = getattr(getattr(module, "config", None), "sliding_window", None)
    return int(size) if isinstance(size, int) and size > 0 else None


def head_count(module: nn.Module) -> int:
    """Query heads of an attention module."""
    config: Any = getattr(module, "config", None)
    count = getattr(config, "num_attention_heads", None) or getattr(module, "num_heads", None)
    if not isinstance(count, int):
        raise ModelError(f"{type(module).__name__}: expected its number of heads in its configuration, found none")
    return count


def check_heads(model: Any, heads: Mapping[int, Sequence[int]]) -> dict[int, nn.Module]:
    """The modules of the layers of some heads.

    Args:
        heads: by layer.

    Raises:
        ModelError: a layer or head does not exist, or cannot be read.
    """
    modules = check_readable(model, list(heads), warn=False)
    for layer, chosen in heads.items():
        count = head_count(modules[layer])
        if wrong := [head for head in chosen if not 0 <= head < count]:
            raise ModelError(
                f"layer {layer}: expected heads from 0 to {count - 1}, got {wrong[0]}; see docs/errors.md#no-such-head"
            )
    return modules


def check_readable(model: Any, layers: list[int], *, warn: bool = True) -> dict[int, nn.Module]:
    """The modules of the chosen layers.

    Raises:
        ModelError: a layer does not exist.
    """
    available = decoder_layers(model)
    for layer in layers:
        if layer not in available:
            raise ModelError(
                f"layer {layer}: expected one of the attention layers {_ranges(list(available))}; "
                "see docs/errors.md#no-such-layer"
            )
        if warn and window(available[layer]) is not None:
            logger.warning(
                "layer %d sees at most %d tokens back: early images may be out of its sight; full layers are %s",
                layer,
                window(available[layer]),
                _ranges(full_layers(available)) or "none",
            )
    return {layer: available[layer] for layer in layers}


def full_layers(layers: dict[int, nn.Module]) -> list[int]:
    """Those that see the whole prompt (no sliding window)."""
    return [index for index, module in layers.items() if window(module) is None]


def layers_without_attention(model: Any, available: Mapping[int, nn.Module]) -> list[int]:
    """Decoder layers that are none of the `available` attention layers: linear attention, convolutions."""
    count = getattr(text_config(model), "num_hidden_layers", None)
    return [index for index in range(count) if index not in available] if isinstance(count, int) else []


def layers_left_out(model: Any) -> list[str]:
    """Which layers of the decoder do not see all pictures, or have no attention to read, and why; empty: every layer does."""
    available = decoder_layers(model)
    told = []
    if others := layers_without_attention(model, available):
        told.append(f"layers {_ranges(others)} are left out: they have no attention (linear attention or convolution)")
    windows = {index: size for index, module in available.items() if (size := window(module)) is not None}
    if windows:
        told.append(
            f"layers {_ranges(list(windows))} see at most {min(windows.values())} tokens back (sliding window): "
            "what they read of early pictures may be nothing"
        )
    return told


def middle_layer(model: Any) -> int:
    """Half of the layers (16 of 32), or the nearest one that sees the whole prompt."""
    available = decoder_layers(model)
    middle = (max(available) + 1) // 2
    candidates = full_layers(available) or list(available)
    return min(candidates, key=lambda index: (abs(index - middle), index))


def _ranges(indices: list[int]) -> str:
    """`0-3, 5` for [0, 1, 2, 3, 5]."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
