"""How likely an answer is given each part's own picture alone, with the bare question: whose answer is it?

A model that is good with one picture can judge itself this way, without a ground truth: an answer that is likely given the
picture asked about, and unlikely given the others, speaks of that picture.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mia_augment import DataError, LogpAlone, Sample, Skipped
from mia_augment.images import OpenImage

from mia_attention.answering.batches import Prompt
from mia_attention.answering.likelihood import GivenAnswer, Likelihood, said_ids, try_likelihoods
from mia_attention.answering.part_answers import PartPrompt, alone_prompt

logger = logging.getLogger(__name__)

ViewKey = tuple[str, str]
"""A view: the path of a picture and the prompt that asks about it."""


@dataclass
class View:
    """One picture with a bare question, and the answers that several samples want to know of it."""

    prompt: PartPrompt
    answers: list[tuple[int, ...]] = field(default_factory=list)

    def add(self, ids: Sequence[int]) -> int:
        """The place of an answer, which is measured once however many samples gave it."""
        answer = tuple(ids)
        if answer not in self.answers:
            self.answers.append(answer)
        return self.answers.index(answer)


def under_each_picture(
    samples: Sequence[Sample],
    responses: Sequence[GivenAnswer],
    model: Any,
    processor: Any,
    *,
    open_image: OpenImage,
    batch_size: int = 8,
) -> list[LogpAlone]:
    """Log-probs of each response given each part's original picture (`Source.paths`) alone and the question as its row has it.

    A picture with a question that several of the samples share is encoded and run once for all of them; whatever
    the batches, the values are those of one prompt at a time but for rounding.

    Args:
        samples: the prompts that were answered.
        responses: for each the token ids that the model emitted, or a text, which the chat template turns into the
            assistant's turn with what ends it.
        batch_size: pictures run at once.

    Returns:
        For each sample its log-probs, one per part; None where a part's picture cannot be used, and at all parts where nothing
        was said.

    Raises:
        DataError: numbers of samples and responses differ.
        ModelError: the model takes no input ids, or its outputs are NaN.
    """
    if len(samples) != len(responses):
        raise DataError(f"expected a response for each of {len(samples)} samples, got {len(responses)}")
    views: dict[ViewKey, View] = {}
    wanted = [_wanted(*pair, views, model, processor) for pair in zip(samples, responses, strict=True)]
    found = _measured(views, model, processor, open_image, batch_size)
    return [_logps(sample, keys, found) for sample, keys in zip(samples, wanted, strict=True)]


def _wanted(
    sample: Sample, response: GivenAnswer, views: dict[ViewKey, View], model: Any, processor: Any
) -> list[tuple[ViewKey, int]]:
    """Note in `views` what is to be measured for a sample; return which view and answer belongs to each of its parts."""
    if not response or (isinstance(response, str) and not response.strip()):
        return []
    wanted = []
    for index, path in enumerate(sample.source.paths[: sample.parts]):
        prompt = PartPrompt(f"{sample.id}, part {index + 1} alone", [path], alone_prompt(sample))
        view = views.setdefault((path, prompt.prompt), View(prompt))
        try:
            ids = said_ids(prompt, response, model, processor, end=True)
        except DataError as error:
            logger.warning("%s: %s", prompt.id, error)
            return []
        wanted.append(((path, prompt.prompt), view.add(ids)))
    return wanted


def _measured(
    views: dict[ViewKey, View], model: Any, processor: Any, open_image: OpenImage, batch_size: int
) -> dict[ViewKey, list[Likelihood]]:
    """Every view's likelihoods; a view that cannot be used is missing, and the log says why."""
    asked = [(key, view) for key, view in views.items() if view.answers]
    prompts: list[Prompt] = [view.prompt for _, view in asked]
    answers = [view.answers for _, view in asked]
    results = try_likelihoods(prompts, answers, model, processor, open_image=open_image, batch_size=batch_size)
    found: dict[ViewKey, list[Likelihood]] = {}
    for (key, _), result in zip(asked, results, strict=True):
        if isinstance(result, Skipped):
            logger.warning("%s: %s", result.id, result.reason)
        else:
            found[key] = result
    return found


def _logps(sample: Sample, wanted: Sequence[tuple[ViewKey, int]], found: dict[ViewKey, list[Likelihood]]) -> LogpAlone:
    each = [found[key][place] if key in found else None for key, place in wanted]
    each += [None] * (sample.parts - len(each))
    by_token = list(zip(*(one.token_logps for one in each if one is not None), strict=True)) if None not in each else []
    return LogpAlone(
        summed=[None if one is None else one.logp for one in each],
        per_token=[None if one is None else one.logp / one.tokens for one in each],
        per_token_any=sum(map(max, by_token)) / len(by_token) if by_token else None,
    )
