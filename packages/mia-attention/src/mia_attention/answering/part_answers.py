"""What the model answers to the same question about each other part alone: the answers it may mix up."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mia_augment import IMAGE, DataError, Sample
from mia_augment.compose import single_header
from PIL import Image

from mia_attention.answering.responses import OpenImage, Response, try_respond

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartPrompt:
    """One part's original picture with the sample's question."""

    id: str
    images: list[str]
    prompt: str


def ask_parts(
    samples: Sequence[Sample], model: Any, processor: Any, *, open_image: OpenImage, batch_size: int, max_new_tokens: int
) -> dict[str, list[str | None]]:
    """By sample id, the answer about each part's own picture (`Source.paths`); None at the target or if it cannot be used.

    The same question about the same picture is asked once.
    """
    pictures = _open_all((path for sample in samples for path in sample.source.paths), open_image)
    prompts: dict[tuple[str, str], PartPrompt] = {}
    for sample in samples:
        for index, path in enumerate(sample.source.paths):
            if index != sample.target and path in pictures:
                text = single_header() + _question(sample)
                prompts.setdefault((path, text), PartPrompt(f"{sample.id}, part {index + 1} alone", [path], text))
    responses = try_respond(
        prompts.values(),
        model,
        processor,
        open_image=pictures.__getitem__,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
    texts: dict[tuple[str, str], str] = {}
    for key, response in zip(prompts, responses, strict=True):
        if isinstance(response, Response):
            texts[key] = response.text
        else:
            logger.warning("confusions: %s: %s", response.id, response.reason)
    return {
        sample.id: [
            None if index == sample.target else texts.get((path, single_header() + _question(sample)))
            for index, path in enumerate(sample.source.paths)
        ]
        for sample in samples
    }


def _open_all(paths: Iterable[str], open_image: OpenImage) -> dict[str, Image.Image]:
    pictures: dict[str, Image.Image] = {}
    for path in dict.fromkeys(paths):
        try:
            pictures[path] = open_image(path)
        except DataError as error:
            logger.warning("confusions: %s", error)
    return pictures


def _question(sample: Sample) -> str:
    return sample.source.question.replace(IMAGE, "").strip()
