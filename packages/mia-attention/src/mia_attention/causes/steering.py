"""Context managers that change how a model attends while the body runs it, `generate` included.

All work on any attention implementation (see `mia_attention.capture.hook`), may be nested with each other and with captures,
and leave the model as it was on every path. Those that change positions hold for the batch of prompts they were made for.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mia_augment import ConfigError, ModelError
from torch import Tensor, nn

from mia_attention.capture.hook import editing
from mia_attention.causes.head_outputs import HeadOutputs, by_layer
from mia_attention.causes.prompt_places import (
    EVERYWHERE,
    BlindRows,
    PromptPlaces,
    delimiters,
    hidden_from_each_other,
    hidden_images,
    places_of,
    weighted_image,
)
from mia_attention.causes.reweighting import LayerReweighting, Reweighting
from mia_attention.heads.head_shares import Head
from mia_attention.models.decoder import check_heads, check_readable, decoder_layers, layers_without_attention
from mia_attention.models.families import adapter_of
from mia_attention.models.inputs import Encoded
from mia_attention.settings import DELIMITER_SCALE

logger = logging.getLogger(__name__)

DELIMITER_LAYERS = (0, 1, 2, 3)
"""Those of the published runs of 2602.01984 on Qwen2.5-VL."""


def editable_layers(model: Any, layers: Sequence[int] | None = None) -> dict[int, nn.Module]:
    """The attention modules of the chosen layers, all by default.

    Raises:
        ModelError: a layer does not exist or cannot be read, or the model's attention is not run by transformers' interface.
    """
    if adapter_of(model) is not None:
        raise ModelError(
            f"{model.config.model_type}: its attention is its own code (it has an adapter), which can be read but not changed; "
            "expected a model that goes through transformers' attention interface; "
            "see docs/errors.md#attention-that-cannot-be-changed"
        )
    available = decoder_layers(model)
    chosen = list(available) if layers is None else list(layers)
    if layers is None and layers_without_attention(model, available):
        logger.warning(
            "%s has layers without attention between layers %s: what they carry from token to token cannot be changed",
            type(model).__name__,
            list(available),
        )
    if not chosen:
        raise ConfigError("layers: expected at least one, got none")
    return check_readable(model, chosen, warn=False)


@contextlib.contextmanager
def reweighting(
    model: Any,
    changes: Sequence[Reweighting],
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[Head] | None = None,
    past: int = 0,
) -> Iterator[None]:
    """Attention weighted otherwise while the body runs the model.

    Args:
        changes: rows, keys and weights, by position in the (padded) sequence.
        layers: decoder layers, from 0; None: all. Not together with `heads`.
        heads: (layer, head): only these; None: all heads of the layers.
        past: positions that the cache given to the model holds already.

    Raises:
        ConfigError, ModelError: a layer or head does not exist, or the model's attention cannot be changed.
    """
    if heads is not None and layers is not None:
        raise ConfigError("expected layers or heads, got both: a head names its layer")
    chosen = None if heads is None else by_layer(heads)
    modules = editable_layers(model, layers if chosen is None else list(chosen))
    if chosen is not None:
        check_heads(model, chosen)
    edits = {layer: LayerReweighting(changes, heads=None if chosen is None else chosen[layer], past=past) for layer in modules}
    with editing(edits, modules):
        yield


@contextlib.contextmanager
def images_hidden(
    model: Any,
    prompts: Encoded | PromptPlaces,
    images: Sequence[int],
    *,
    rows: BlindRows | Sequence[BlindRows] = EVERYWHERE,
    layers: Sequence[int] | None = None,
    past: int = 0,
) -> Iterator[None]:
    """The tokens of some pictures are invisible to some rows. ::

        with images_hidden(model, encoded, [1]):
            model.generate(**encoded.inputs)  # as if Image2 were not there

    Args:
        prompts: the batch that the body runs, from `encode_prompts`.
        images: numbers of pictures, from 0.
        rows: who does not see them, see `BlindRows`; by default everybody but the pictures themselves.
        layers, past: as for `reweighting`.

    Raises:
        ConfigError: a prompt has no such picture.
        ModelError: as `reweighting`.
    """
    places = _places(prompts)
    places.check(images)
    with reweighting(model, hidden_images(places, images, rows), layers=layers, past=past):
        yield


@contextlib.contextmanager
def images_blocked(
    model: Any, prompts: Encoded | PromptPlaces, *, layers: Sequence[int] | None = None, past: int = 0
) -> Iterator[None]:
    """Pictures do not see each other (CAPL, arXiv 2603.07048); text sees them all. Arguments as for `images_hidden`."""
    with reweighting(model, hidden_from_each_other(_places(prompts)), layers=layers, past=past):
        yield


@contextlib.contextmanager
def images_rebalanced(
    model: Any,
    prompts: Encoded | PromptPlaces,
    weights: Mapping[int, float],
    *,
    rows: BlindRows | Sequence[BlindRows] = ("question", "answer"),
    layers: Sequence[int] | None = None,
    heads: Sequence[Head] | None = None,
    past: int = 0,
) -> Iterator[None]:
    """Attention on picture k is multiplied by `weights[k]` before each row is normalised again.

    Args:
        weights: by the picture's number; pictures without one keep 1.
        rows: whose attention; by default that of the text.
        prompts, layers, heads, past: as for `images_hidden` and `reweighting`.
    """
    places = _places(prompts)
    places.check(list(weights))
    changes = [weighted_image(places, image, weight, rows) for image, weight in weights.items()]
    with reweighting(model, changes, layers=layers, heads=heads, past=past):
        yield


@contextlib.contextmanager
def heads_scaled(model: Any, heads: Sequence[Head], factor: float) -> Iterator[None]:
    """The outputs of some heads are multiplied by `factor`: above 1 they are boosted, 0 takes them out.

    Raises:
        ConfigError, ModelError: a layer or head does not exist, or the model's attention cannot be changed.
    """
    with _outputs(model, heads, factor, None):
        yield


@contextlib.contextmanager
def heads_ablated(model: Any, heads: Sequence[Head], means: Mapping[int, Tensor]) -> Iterator[None]:
    """Some heads say the same whatever they see: their mean output, so that only what they tell apart is lost.

    Args:
        heads: (layer, head), from 0.
        means: by layer, (heads, dim), from `head_means`.

    Raises:
        ConfigError, ModelError: a layer or head does not exist or has no mean, or the model's attention cannot be changed.
    """
    if missing := [layer for layer, _ in heads if layer not in means]:
        raise ConfigError(f"means: expected one for layer {missing[0]}, got layers {sorted(means)}; see head_means")
    with _outputs(model, heads, 1.0, means):
        yield


@contextlib.contextmanager
def delimiters_scaled(
    model: Any, encoded: Encoded, scale: float = DELIMITER_SCALE, *, layers: Sequence[int] = DELIMITER_LAYERS
) -> Iterator[None]:
    """Hidden states of the tokens around each picture are multiplied after each of some early layers (arXiv 2602.01984).

    As in the authors' code, the residual stream itself is scaled, so the layers' factors multiply. Prompts of a single
    picture stay as they are. Where a family has no tokens that open and close a picture, the text beside it takes their part.

    Args:
        encoded: the batch that the body runs, from `encode_prompts`.
        layers: decoder layers, from 0; those behind the last one are left out.

    Raises:
        ModelError: a layer does not exist or is no part of a block.
    """
    modules = editable_layers(model, [layer for layer in layers if layer <= max(decoder_layers(model))])
    several = torch.tensor([len(row) > 1 for row in encoded.image_tokens])
    marked = delimiters(encoded) & several[:, None]

    def scaled(module: nn.Module, args: Any, output: Any) -> Any:
        states: Tensor = output[0] if isinstance(output, tuple) else output
        if states.shape[:2] != marked.shape:  # an answer's token: no delimiter
            return output
        states = torch.where(marked.to(states.device)[..., None], states * scale, states)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    with contextlib.ExitStack() as stack:
        for module in modules.values():
            stack.callback(_block_of(model, module).register_forward_hook(scaled).remove)
        yield


@contextlib.contextmanager
def _outputs(model: Any, heads: Sequence[Head], factor: float, means: Mapping[int, Tensor] | None) -> Iterator[None]:
    chosen = by_layer(heads)
    modules = editable_layers(model, list(chosen))
    check_heads(model, chosen)
    edits = {layer: HeadOutputs(chosen[layer], factor, None if means is None else means[layer]) for layer in modules}
    with editing(edits, modules):
        yield


def _places(prompts: Encoded | PromptPlaces) -> PromptPlaces:
    return places_of(prompts) if isinstance(prompts, Encoded) else prompts


def _block_of(model: Any, module: nn.Module) -> nn.Module:
    """The decoder block that holds an attention module."""
    for block in model.modules():
        if any(child is module for child in block.children()):
            return block  # type: ignore[no-any-return]
    raise ModelError(f"{type(module).__name__} stands in no block of the model")
