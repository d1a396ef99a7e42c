"""From prompts and pictures to a model's inputs, with the place of every image's tokens."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mia_augment import ModelError, barred_tokens, image_token_id
from mia_augment.prompting import IMAGE_TYPES, WrongTokens, image_placeholder, per_token, process
from PIL import Image
from torch import Tensor

PLACES = "position_mask"
"""How the input ends that marks the visual tokens of a prompt where no token of their own does (Kosmos-2)."""


@dataclass(frozen=True)
class Encoded:
    """A left-padded batch.

    Attributes:
        inputs: what the model takes, on its device.
        image_tokens: per sample and image, positions of its visual tokens in the padded sequence, in order, (tokens,).
        question: per sample, positions of the text between the last image and the template's closing words, from, to;
            None where it was not asked for.
    """

    inputs: dict[str, Any]
    image_tokens: list[list[Tensor]]
    question: list[tuple[int, int]] | None

    @property
    def prompt_length(self) -> int:
        return int(self.inputs["attention_mask"].shape[1])


def encode(
    model: Any,
    processor: Any,
    texts: Sequence[str],
    images: Sequence[Sequence[Image.Image]],
    *,
    tails: Sequence[str] | None = None,
) -> Encoded:
    """Tokenise rendered prompts and process their pictures as one left-padded batch.

    Args:
        texts: rendered prompts (`mia_augment.prompting.chat.render_prompt`), with the processor's image token once per picture.
        images: the pictures of each prompt.
        tails: what the chat template puts after each question; given, `Encoded.question` is filled.

    Raises:
        ModelError: the processor does not report which tokens belong to which image.
    """
    features = process(
        processor,
        texts,
        images,
        return_text_replacement_offsets=True,
        **({"return_offsets_mapping": True} if tails is not None else {}),
    )
    replacements = features.pop("text_replacement_offsets", None)
    offsets = features.pop("offset_mapping", None)
    places = None if replacements is None else [[r for r in row if r["type"] == "image"] for row in replacements]
    if places is not None and [len(row) for row in places] != [len(row) for row in images]:
        places = None  # the chat template wrote the visual tokens itself (PP-Chart2Table)
    image_tokens = _image_tokens(model, processor, features, texts, images, places)
    question = None
    if tails is not None:
        if places is None:
            raise ModelError(f"{type(processor).__name__} does not say where the question stands (text_replacement_offsets)")
        question = [_question(offsets[i], places[i][-1]["new_span"][1], len(tail)) for i, tail in enumerate(tails)]
    if IMAGE_TYPES in features and IMAGE_TYPES not in inspect.signature(_inner(model).forward).parameters:
        features.pop(IMAGE_TYPES)
    return Encoded(_to_model(features, model), image_tokens, question)


def _image_tokens(
    model: Any,
    processor: Any,
    features: Any,
    texts: Sequence[str],
    images: Sequence[Sequence[Image.Image]],
    places: list[list[Any]] | None,
) -> list[list[Tensor]]:
    """Positions of each image's visual tokens per sample; none in models whose pictures are no tokens of the prompt.

    Args:
        places: what the processor put for each picture, if it says so.
    """
    masks = [value for name, value in per_token(features).items() if name.endswith(PLACES)]
    if masks:
        return [_runs(mask, len(row)) for mask, row in zip(masks[0], images, strict=True)]
    if not barred_tokens(model):
        return [[] for _ in texts]
    token_id = image_token_id(model)
    if places is None:
        counts = [_counted_alone(processor, text, row, token_id) for text, row in zip(texts, images, strict=True)]
    else:
        token = processor.tokenizer.convert_ids_to_tokens(token_id)
        counts = [[place["replacement"].count(token) for place in row] for row in places]
    return split_images(features["input_ids"], token_id, counts)


def _runs(mask: Tensor, images: int) -> list[Tensor]:
    """Positions of each run of a mask over a prompt, (length,): one for each of its images."""
    positions = mask.nonzero()[:, 0]
    cuts = (positions.diff() > 1).nonzero()[:, 0] + 1
    runs = list(positions.tensor_split(cuts)) if len(positions) else []
    if len(runs) != images:
        raise WrongTokens(f"expected {images} runs of visual tokens for {images} images in the prompt, got {len(runs)}")
    return runs


def _inner(model: Any) -> Any:
    """The model within an adapter of PEFT, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _counted_alone(processor: Any, text: str, images: Sequence[Image.Image], token_id: int) -> list[int]:
    """How many visual tokens each picture of a prompt becomes, where the processor does not say so: each goes through it alone.

    Raises:
        ModelError: the prompt does not hold one placeholder a picture.
    """
    token = image_placeholder(processor, text)
    if len(images) > 1 and (token is None or text.count(token) != len(images)):
        raise ModelError(f"{type(processor).__name__} does not say which tokens an image became (text_replacement_offsets)")
    alone = [text] if len(images) == 1 or token is None else [token]
    return [int((process(processor, alone, [[image]])["input_ids"] == token_id).sum()) for image in images]


def split_images(input_ids: Tensor, token_id: int, counts: Sequence[Sequence[int]]) -> list[list[Tensor]]:
    """Positions of each image's visual tokens.

    Args:
        input_ids: (batch, length).
        token_id: of a visual token.
        counts: per sample and image, how many visual tokens it became.

    Raises:
        WrongTokens: a sample holds more or fewer visual tokens than its images became.
    """
    out = []
    for ids, row in zip(input_ids, counts, strict=True):
        positions = (ids == token_id).nonzero()[:, 0]
        if len(positions) != sum(row):
            raise WrongTokens(f"expected {sum(row)} visual tokens for {len(row)} images in the prompt, got {len(positions)}")
        out.append(list(positions.split(list(row))))
    return out


def _question(offsets: Tensor, start: int, tail: int) -> tuple[int, int]:
    """Token range of the characters from `start` to `tail` before the end; offsets are (length, 2), (0, 0) for padding."""
    end = int(offsets[:, 1].max()) - tail
    inside = ((offsets[:, 1] > offsets[:, 0]) & (offsets[:, 0] >= start) & (offsets[:, 0] < end)).nonzero()[:, 0]
    if not len(inside):
        return len(offsets), len(offsets)
    return int(inside[0]), int(inside[-1]) + 1


def _to_model(features: Any, model: Any) -> dict[str, Any]:
    """Move tensors to the model's device and floats to its type."""
    moved: dict[str, Any] = {}
    for name, value in features.items():
        if torch.is_tensor(value):
            value = value.to(model.device)
            value = value.to(model.dtype) if value.is_floating_point() else value
        moved[name] = value
    return moved
