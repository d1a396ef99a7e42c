"""What single heads say: scaled, or replaced by their mean over many positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mia_augment import ConfigError, ModelError
from torch import Tensor

from mia_attention.capture.hook import probing
from mia_attention.models.decoder import check_readable, decoder_layers
from mia_attention.models.layer_call import Call


class HeadOutputs:
    """Edit of one layer: changes the outputs of some heads."""

    def __init__(self, heads: Sequence[int], factor: float, means: Tensor | None) -> None:
        self._heads = list(heads)
        self._factor = factor
        self._means = means

    def mask(self, call: Call) -> Tensor | None:
        return None

    def output(self, output: Tensor) -> Tensor:
        out = output.clone()
        if self._means is None:
            out[:, :, self._heads] = output[:, :, self._heads] * self._factor
        else:
            out[:, :, self._heads] = self._means[self._heads].to(output)
        return out


class OutputSum:
    """Observer of one layer: sums the outputs of all real positions."""

    def __init__(self, real: Tensor) -> None:
        self._real = real
        self.mean: Tensor | None = None

    def __call__(self, call: Call) -> None:
        if call.output is None:
            raise ModelError(
                "head_means: models with an adapter give no attention outputs; "
                "see docs/errors.md#attention-that-cannot-be-changed"
            )
        real = self._real.to(call.output.device)
        self.mean = call.output.detach().float()[real].mean(0)


def head_means(model: Any, inputs: Mapping[str, Any], layers: Sequence[int] | None = None) -> dict[int, Tensor]:
    """Mean output of every head over all real positions of a batch, for `heads_ablated`.

    Args:
        inputs: what the model takes, with `attention_mask`; typical prompts, the more the better.
        layers: from 0; None: all.

    Returns:
        By layer, (heads, dim) float32.

    Raises:
        ModelError: a layer does not exist or cannot be read.
    """
    modules = check_readable(model, list(decoder_layers(model)) if layers is None else list(layers), warn=False)
    sums = {layer: OutputSum(inputs["attention_mask"].bool()) for layer in modules}
    with torch.inference_mode(), probing(sums, modules):
        model(**inputs, use_cache=False)
    return {layer: each.mean for layer, each in sums.items() if each.mean is not None}


def by_layer(heads: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    """Heads of each layer, in order.

    >>> by_layer([(3, 1), (0, 2), (3, 0)])
    {0: [2], 3: [0, 1]}

    Raises:
        ConfigError: no head, or one twice.
    """
    pairs = [(int(layer), int(head)) for layer, head in heads]
    if not pairs or len(set(pairs)) != len(pairs):
        raise ConfigError(f"heads: expected one or several different (layer, head), got {[list(pair) for pair in pairs]}")
    return {layer: sorted(head for other, head in pairs if other == layer) for layer in sorted({layer for layer, _ in pairs})}
