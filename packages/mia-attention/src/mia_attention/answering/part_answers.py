"""What the model answers to the same question about each part alone: what it can say, and what it may mix up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mia_augment import IMAGE, SINGLE, DataError, Region, Sample, Skipped, Source
from mia_augment.compose import single_header
from mia_augment.images import OpenImage
from PIL import Image

from mia_attention.answering.responses import Response, try_respond

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartPrompt:
    """One part's original picture with the sample's question."""

    id: str
    images: list[str]
    prompt: str


Respond = Callable[[Sequence[PartPrompt]], Iterator[Response | Skipped]]
"""From prompts to their answers, in order."""

AloneAnswers = list[Response | None]
"""Per part of a sample, what the model answers about its picture alone; None: not asked, or the picture cannot be used."""


def ask_parts(
    samples: Sequence[Sample],
    model: Any,
    processor: Any,
    *,
    open_image: OpenImage,
    batch_size: int,
    max_new_tokens: int,
    companions: bool = True,
    respond: Respond | None = None,
) -> dict[str, AloneAnswers]:
    """By sample id, the answer about each part's own picture (`Source.paths`) alone; without `companions`, the target's only.

    The same question about the same picture is asked once. `respond` answers in the model's stead.
    """
    wanted = {
        sample.id: [path if companions or index == sample.target else None for index, path in enumerate(sample.source.paths)]
        for sample in samples
    }
    pictures = _open_all((path for paths in wanted.values() for path in paths if path is not None), open_image)
    prompts: dict[tuple[str, str], PartPrompt] = {}
    for sample in samples:
        for index, path in enumerate(wanted[sample.id]):
            if path in pictures:
                text = alone_prompt(sample)
                prompts.setdefault((path, text), PartPrompt(f"{sample.id}, part {index + 1} alone", [path], text))
    if respond is None:
        asked = partial(try_respond, model=model, processor=processor, open_image=pictures.__getitem__)
        respond = partial(asked, batch_size=batch_size, max_new_tokens=max_new_tokens)
    responses = respond(list(prompts.values()))
    answers: dict[tuple[str, str], Response] = {}
    for key, response in zip(prompts, responses, strict=True):
        if isinstance(response, Response):
            answers[key] = response
        else:
            logger.warning("confusions: %s: %s", response.id, response.reason)
    return {
        sample.id: [None if path is None else answers.get((path, alone_prompt(sample))) for path in wanted[sample.id]]
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


def alone_prompt(sample: Sample) -> str:
    """The prompt that asks a sample's question, as its row has it, about a single picture."""
    return single_header() + sample.source.question.replace(IMAGE, "").strip()


def target_alone(sample: Sample) -> Sample:
    """The sample of format `single` that asks the same question about the target's original picture alone."""
    place = sample.target
    source = Source(
        ids=sample.source.ids[place : place + 1], paths=sample.source.paths[place : place + 1], question=sample.source.question
    )
    return Sample(
        id=sample.id,
        format=SINGLE,
        images=source.paths,
        prompt=alone_prompt(sample),
        answer=sample.answer,
        regions=[Region(image=0, label=sample.regions[place].label)],
        target=0,
        source=source,
    )
