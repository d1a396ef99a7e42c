"""How likely an answer is given each part's own picture alone, with the bare question: whose answer is it?

A model that is good with one picture can judge itself this way, without a ground truth: an answer that is likely given the
picture asked about, and unlikely given the others, speaks of that picture.
"""

from __future__ import annotations

import logging
import math
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
    return LogpAlone(
        summed=[None if one is None else one.logp for one in each],
        per_token=[None if one is None else one.logp / one.tokens for one in each],
    )


def shares(logps: Sequence[float | None]) -> list[float] | None:
    """Each part's share of an answer's likelihood: exp(l_k) / sum_i exp(l_i); the parts' posterior if all are asked as often.

    Args:
        logps: log p(answer | part k alone), in nats, of all parts.

    Returns:
        Shares that add up to 1; None where a part was not measured or the answer is impossible whatever is shown.

    >>> [round(share, 2) for share in shares([-1.0, -1.0, -1.0 + math.log(2)])]
    [0.25, 0.25, 0.5]
    """
    known = [logp for logp in logps if logp is not None]
    if not known or len(known) < len(logps) or max(known) == -math.inf:
        return None
    largest = max(known)
    weights = [math.exp(logp - largest) for logp in known]
    return [weight / sum(weights) for weight in weights]
