"""How much of a pixel box each visual token of a picture sees.

The box is painted white on a black picture of the same size, which goes through the model's own image processor without
normalisation: resizing, cropping, padding and tiling follow by themselves.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from mia_augment import Box, DataError, ModelError
from PIL import Image
from torch import Tensor

from mia_attention.models.decoder import why_unread
from mia_attention.models.families import family_of
from mia_attention.models.painting import PixelOrder, coverage_of, find_order

CACHE = 4096
"""Boxes remembered."""


class BoxCoverage:
    """Coverage of boxes for one model and its processor; results are remembered by picture size and box."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._model_type = str(model.config.model_type)
        self._family = family_of(model)
        self._adapter = self._family.adapter
        self._original = processor
        self._processor = processor if self._adapter else _without_normalisation(processor)
        self._paint = functools.lru_cache(maxsize=CACHE)(self._compute)

    @functools.cached_property
    def known(self) -> bool:
        """Whether boxes can be mapped; of an unknown family only whole images can be measured."""
        if self._adapter is not None:
            return self._adapter.brightness(self._model, self._processor, Image.new("RGB", (64, 64))) is not None
        return self._family.layout is not None or self.order.guess is not None

    @functools.cached_property
    def order(self) -> PixelOrder:
        """In which order the visual tokens of a family without a row in the table see pixels, found by painting."""
        if (reason := why_unread(self._model)) is not None:
            return PixelOrder(None, reason)
        return find_order(self._model, self._original, self._processor)

    def __call__(self, size: tuple[int, int], box: Box, *, tokens: int, several: bool) -> Tensor:
        """Share of each visual token's pixels that lie in the box.

        Args:
            size: of the picture, (width, height) in pixels.
            box: (left, top, right, bottom) in pixels, half-open.
            tokens: how many visual tokens the picture became.
            several: whether the prompt holds several pictures (see `Family.among_several`).

        Returns:
            (tokens,) float32 in 0..1, on the CPU.

        Raises:
            DataError: the box does not lie in the picture.
            ModelError: the family is unknown, or its processor made another number of tokens.
        """
        left, top, right, bottom = box
        if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
            raise DataError(f"box {box}: expected one within the picture of {size[0]} x {size[1]} px")
        weights = self._paint(size, box, several, tokens)
        if len(weights) != tokens:
            raise ModelError(
                f"{self._model_type}: the picture of {size[0]} x {size[1]} px became {tokens} visual tokens, "
                f"but {len(weights)} were mapped to pixels; the processor and the model do not fit"
            )
        return weights

    def _by_guess(self, guess: str, size: tuple[int, int], box: Box, tokens: int) -> Tensor:
        seen = coverage_of(self._model, self._processor, guess, size, box, tokens)
        return torch.zeros(0) if seen is None else seen

    def _compute(self, size: tuple[int, int], box: Box, several: bool, tokens: int) -> Tensor:
        if self._adapter is None and self._family.layout is None and self.order.guess is not None:
            return self._by_guess(self.order.guess, size, box, tokens)
        picture = Image.new("RGB", size)
        picture.paste((255, 255, 255), box)
        with torch.no_grad():
            seen = self._brightness(picture, several)
        if seen is None:
            raise ModelError(
                f"{self._model_type}: its visual tokens cannot be mapped to pixels ({self.order.reason}); only whole images can"
            )
        return seen.float().cpu().clamp(0, 1)

    def _brightness(self, picture: Image.Image, several: bool) -> Tensor | None:
        if self._adapter is not None:
            return self._adapter.brightness(self._model, self._processor, picture)
        if self._family.layout is None:
            return None
        blank = [Image.new("RGB", picture.size)] if several and self._family.among_several else []
        pictures = [picture, *blank]
        text = self._processor.image_token * len(pictures)
        features = self._processor(images=[pictures], text=[text], return_tensors="pt")
        return self._family.layout(self._model, self._processor, features)


def _without_normalisation(processor: Any) -> Any:
    """A copy whose pictures come out in 0..1 and whose padding is black."""
    image_processor = copy.copy(processor.image_processor)
    image_processor.image_mean, image_processor.image_std = [0.0] * 3, [1.0] * 3
    image_processor.do_normalize = False
    plain = copy.copy(processor)
    plain.image_processor = image_processor
    return plain
