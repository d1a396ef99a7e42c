"""One call of a model's processor for a batch of rendered prompts and their pictures. Needs no torch: it makes the tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from mia_augment.prompting.chat import image_placeholder, media_tokens
from mia_augment.prompting.plain_text import reading_plainly

IMAGE_TYPES = "mm_token_type_ids"
"""Output that tells image tokens from text; many processors give it only when asked."""
_OF_PICTURES = ("image_", "pixel_", "video_")
_OF_TOKENS = ("attention_mask", "position_mask")
"""How outputs end that say of every token which pictures it sees (Mllama, Idefics), or whether it stands for one (Kosmos-2)."""
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
    with _padding_left(processor.tokenizer):
        features = _called(reading_plainly(processor, texts), list(texts), [list(row) for row in images], keywords)
    for name in _FOR_TRAINING:
        features.pop(name, None)
    return features


@contextlib.contextmanager
def _padding_left(tokenizer: Any) -> Iterator[None]:
    """Some processors pad by themselves, on the side that their tokenizer names (Kosmos-2)."""
    before = getattr(tokenizer, "padding_side", None)
    if before in (None, "left"):
        yield
        return
    tokenizer.padding_side = "left"
    try:
        yield
    finally:
        tokenizer.padding_side = before


def _called(processor: Any, texts: list[str], images: list[list[Image.Image]], keywords: dict[str, Any]) -> Any:
    """The processor's answer; some that know one picture a prompt take pictures only in a plain list."""
    if not any(token in text for text in texts for token in media_tokens(processor)) and all(len(row) == 1 for row in images):
        try:  # it places the picture itself
            return processor(images=[row[0] for row in images], text=texts, **keywords)
        except (ValueError, TypeError):
            pass
    try:
        return processor(images=images, text=texts, **keywords)
    except (ValueError, TypeError):
        if any(len(row) != 1 for row in images):
            raise
        for further in (texts, [_without_places(processor, text) for text in texts]):
            with contextlib.suppress(Exception):
                return processor(images=[row[0] for row in images], text=further, **keywords)
        raise


def _without_places(processor: Any, text: str) -> str:
    """A prompt without the token of its picture, which some processors put in front themselves (Florence-2)."""
    token = image_placeholder(processor, text)
    return text.replace(token, "") if token else text


def per_token(features: Any) -> dict[str, Any]:
    """The outputs of a processor that say something of every token of the prompts: ids, mask, token types, (batch, tokens), and
    which pictures each sees, (batch, tokens, pictures, ..).

    They are known by their shape; all other outputs describe pictures.
    """
    shape = tuple(features["input_ids"].shape)

    def of_tokens(name: str, value: Any) -> bool:
        own = tuple(getattr(value, "shape", ()))
        if own[:2] != shape or value.is_floating_point():
            return False
        return name.endswith(_OF_TOKENS) if len(own) > 2 or name.startswith(_OF_PICTURES) else True

    return {name: value for name, value in features.items() if of_tokens(name, value)}
