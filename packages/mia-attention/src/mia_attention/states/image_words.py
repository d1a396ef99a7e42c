"""The logit lens of pictures: which words each visual token stands for, layer by layer, and where on the picture it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mia_augment import ConfigError
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mia_attention.answering.model_view import encode_prompts
from mia_attention.looking.asked import Picture, ask_about
from mia_attention.measure.attention_maps import cell_shares
from mia_attention.measure.maps import coverages
from mia_attention.models.box_coverage import BoxCoverage
from mia_attention.states.hidden_states import as_words, capture_states, decoder_blocks

FINE = 24
"""Cells along a picture's longer side, by which a token's place is found."""


@dataclass(frozen=True)
class TokenWords:
    """What one visual token stands for.

    Attributes:
        words, chances: the likeliest, and each one's probability.
        place: (left, top, right, bottom) px of what the token sees, rounded to cells; None: it sees no pixel, or this model's
            visual tokens cannot be mapped.
    """

    words: tuple[str, ...]
    chances: tuple[float, ...]
    place: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class ImageWords:
    """Attributes:
    pictures, labels: RGB; what the prompt calls each.
    tokens: by layer, for each picture its visual tokens in order.
    """

    pictures: list[Image.Image]
    labels: list[str]
    tokens: dict[int, list[list[TokenWords]]]


def image_words(
    model: Any,
    processor: Any,
    pictures: Sequence[Picture],
    question: str,
    *,
    layers: Sequence[int] | None = None,
    top: int = 3,
) -> ImageWords:
    """Top words of each visual token by the logit lens (`as_words`), from one pass over the prompt. ::

        found = image_words(model, processor, ["cat.jpg"], "What animal is it?", layers=[24])
        plot_words(found, 24).savefig("words.png")

    Args:
        model, processor, pictures, question: as for `mia_attention.look`.
        layers: as `capture_states` counts; the three quarters point if None.
        top: how many words.

    Raises:
        ConfigError, DataError, ModelError: as `look` and `capture_states`.
    """
    if top < 1:
        raise ConfigError(f"top: expected at least one word, got {top}")
    asked = ask_about(pictures, question)
    last = len(decoder_blocks(model)[0])
    chosen = [last * 3 // 4] if layers is None else list(layers)
    encoded = encode_prompts(model, processor, [asked.prompt], [asked.pictures])
    with torch.inference_mode(), capture_states(model, chosen, stop=True) as states:
        model(**encoded.inputs, use_cache=False)
    coverage, several = BoxCoverage(model, processor), len(asked.pictures) > 1
    located = [
        _places(coverage, picture.size, len(positions), several)
        for picture, positions in zip(asked.pictures, encoded.image_tokens[0], strict=True)
    ]

    def read(layer: int, positions: Tensor, places: Sequence[Any]) -> list[TokenWords]:
        logps = as_words(model, states.at(layer)[0, positions.to(states.at(layer).device)], normed=layer == last)
        found = logps.topk(min(top, logps.shape[-1]), dim=-1)
        return [
            TokenWords(tuple(processor.tokenizer.decode([token]).strip() for token in ids), tuple(chances), place)
            for ids, chances, place in zip(found.indices.tolist(), found.values.exp().tolist(), places, strict=True)
        ]

    tokens = {layer: [read(layer, *each) for each in zip(encoded.image_tokens[0], located, strict=True)] for layer in chosen}
    return ImageWords(asked.pictures, asked.labels, tokens)


def _places(coverage: BoxCoverage, size: tuple[int, int], tokens: int, several: bool) -> list[Any]:
    """What each token sees, (left, top, right, bottom) px, or None."""
    if not coverage.known:
        return [None] * tokens
    in_row, in_column = cell_shares(size, coverages(coverage, tokens, several), FINE)
    spans = [_span(row, size[1]) for row in in_row], [_span(column, size[0]) for column in in_column]
    return [None if x is None or y is None else (x[0], y[0], x[1], y[1]) for y, x in zip(*spans, strict=True)]


def _span(shares: NDArray[np.float64], length: int) -> tuple[float, float] | None:
    """From, to: about the centre of the shares, as wide as a uniform spread with their variance."""
    if shares.sum() <= 0:
        return None
    step = length / len(shares)
    middles = (np.arange(len(shares)) + 0.5) * step
    centre = float((shares * middles).sum())
    half = float(np.sqrt(3 * (shares * (middles - centre) ** 2).sum() + step**2 / 4))  # var = (2 half)^2 / 12
    return max(centre - half, 0.0), min(centre + half, float(length))
