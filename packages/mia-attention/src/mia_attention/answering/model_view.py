"""What the model gets to see of a sample: its prompt as text, and its pictures, disturbed where the method wants that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mia_augment import FORMATS, IMAGE, Box, DataError, ModelError, Sample, seed_from
from mia_augment.compose import disturb
from mia_augment.images import OpenImage
from mia_augment.prompting import guarded, render_prompt
from PIL import Image

from mia_attention.models.families import adapter_of
from mia_attention.models.inputs import Encoded, encode
from mia_attention.settings import ScoreSettings


def record_rng(seed: int, record_id: str) -> np.random.Generator:
    """Randomness of one record: neither the order nor the number of workers changes it."""
    return np.random.default_rng(seed_from(seed, record_id, bits=128, algorithm="sha256"))


def open_view(sample: Sample, open_image: OpenImage, settings: ScoreSettings) -> list[Image.Image]:
    """The sample's pictures, with Gaussian noise where the table of formats and the settings want it.

    Raises:
        DataError: a picture cannot be opened, or a region does not lie in its picture.
    """
    pictures = [open_image(name) for name in sample.images]
    for region in sample.regions:
        width, height = pictures[region.image].size
        if region.box is not None and (region.box[2] > width or region.box[3] > height):
            raise DataError(f"region {region.label!r}: box {region.box} leaves its picture of {width} x {height} px")
    sigma = getattr(settings.sigma, sample.format)
    if not settings.disturb or sigma == 0:
        return pictures
    region = sample.regions[sample.target]
    whole: Box = (0, 0, *pictures[region.image].size)
    box = whole if FORMATS[sample.format].disturbed == "picture" or region.box is None else region.box
    noisy = disturb(pictures[region.image], box, sigma, record_rng(settings.seed, sample.id))
    return [noisy if index == region.image else picture for index, picture in enumerate(pictures)]


def encode_prompts(
    model: Any,
    processor: Any,
    prompts: Sequence[str],
    images: Sequence[Sequence[Image.Image]],
    *,
    question: bool = False,
) -> Encoded:
    """Prompts with `<image>` placeholders and their pictures as one left-padded batch.

    With `question`, it also says where each question stands.

    Raises:
        ModelError: the processor has no chat template, or does not say which tokens belong to which image.
    """
    adapter = adapter_of(model)
    if adapter is not None:
        encoded = adapter.encode(model, processor, prompts, images)
        if question and encoded.question is None:
            raise ModelError(
                f"{model.config.model_type}: its adapter does not say where the question stands (Encoded.question)"
            )
        return encoded
    texts, tails = zip(*(render_with_tail(processor, prompt) for prompt in prompts), strict=True)
    return encode(model, processor, texts, images, tails=tails if question else None)


def render_with_tail(processor: Any, prompt: str) -> tuple[str, str]:
    """A rendered prompt, and what the chat template puts after the question (the text after the last image).

    Where no question can be told apart, the whole text counts as what comes after.
    """
    rendered = render_prompt(processor, prompt)
    question = guarded(processor, prompt).split(IMAGE)[-1].strip()
    if not question or question not in rendered:
        return rendered, rendered
    return rendered, rendered[rendered.rindex(question) + len(question) :]
