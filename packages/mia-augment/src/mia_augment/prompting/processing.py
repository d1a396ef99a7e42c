"""One call of a model's processor for a batch of rendered prompts and their pictures. Needs no torch: it makes the tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

IMAGE_TYPES = "mm_token_type_ids"
"""Output that tells image tokens from text; many processors give it only when asked."""
_OF_PICTURES = ("image_", "pixel_", "video_")
_FOR_TRAINING = ("labels",)
"""Outputs that some processors add and that would have the model compute a loss over the prompt."""


def process(processor: Any, texts: Sequence[str], images: Sequence[Sequence[Image.Image]], **keywords: Any) -> Any:
    """What a processor makes of prompts and pictures: a left-padded batch of tensors.

    A beginning-of-sequence token that the chat template wrote already is not put a second time.

    Args:
        texts: rendered prompts (`mia_augment.prompting.render_prompt`).
        images: the pictures of each.
        keywords: for the processor, besides those that every batch needs.
    """
    bos = getattr(processor.tokenizer, "bos_token", None)
    if bos and all(text.startswith(bos) for text in texts):
        keywords["add_special_tokens"] = False
    if IMAGE_TYPES in getattr(processor, "model_input_names", ()):
        keywords[f"return_{IMAGE_TYPES}"] = True
    keywords |= {"padding": True, "padding_side": "left", "return_tensors": "pt"}
    features = _called(processor, list(texts), [list(row) for row in images], keywords)
    for name in _FOR_TRAINING:
        features.pop(name, None)
    return features


def _called(processor: Any, texts: list[str], images: list[list[Image.Image]], keywords: dict[str, Any]) -> Any:
    """The processor's answer; some that know one picture a prompt take pictures only in a plain list."""
    try:
        return processor(images=images, text=texts, **keywords)
    except (ValueError, TypeError) as error:
        if any(len(row) != 1 for row in images):
            raise
        try:
            return processor(images=[row[0] for row in images], text=texts, **keywords)
        except Exception:
            raise error from None


def per_token(features: Any) -> dict[str, Any]:
    """The outputs of a processor with one number for every token of the prompts, (batch, tokens): ids, mask, token types.

    They are known by their shape; all other outputs describe pictures.
    """
    shape = tuple(features["input_ids"].shape)
    return {
        name: value
        for name, value in features.items()
        if tuple(getattr(value, "shape", ())) == shape and not value.is_floating_point() and not name.startswith(_OF_PICTURES)
    }
