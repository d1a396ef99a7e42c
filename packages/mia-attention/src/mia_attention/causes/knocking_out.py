"""How much an answer depends on each picture: what its log-prob loses where the picture's tokens are invisible."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mia_augment import DataError, ModelError, Sample, Skipped, image_token_id
from mia_augment.images import OpenImage

from mia_attention.answering.batches import run_in_order
from mia_attention.answering.likelihood import Likelihood, in_one_pass, said_ids
from mia_attention.answering.responses import all_used
from mia_attention.causes.part_places import part_places
from mia_attention.causes.prompt_places import EVERYWHERE, BlindRows, PromptPlaces, hidden_images, places_of
from mia_attention.causes.steering import reweighting
from mia_attention.models.inputs import Encoded
from mia_attention.scoring.scorer import Prepared, Scorer
from mia_attention.settings import ScoreSettings


@dataclass(frozen=True)
class Knockout:
    """What an answer's log-prob loses without each picture.

    Attributes:
        logp: of the answer with all pictures, in nats, summed over its tokens.
        tokens: their number.
        loss: by the picture's number: `logp` minus the log-prob without the picture. Above 0: the answer needs it.
    """

    logp: float
    tokens: int
    loss: dict[int, float]


def knockout(
    model: Any,
    encoded: Encoded,
    answers: Sequence[Sequence[int]],
    *,
    images: Sequence[int] | None = None,
    rows: BlindRows | Sequence[BlindRows] = EVERYWHERE,
    layers: Sequence[int] | None = None,
    places: PromptPlaces | None = None,
) -> list[Knockout]:
    """What given answers lose without each picture; one pass over prompt and answer for each picture and one with all.

    loss_k = log p(answer | prompt) - log p(answer | prompt, tokens of picture k invisible to `rows`)

    Args:
        encoded: left-padded prompts with their pictures, from `encode_prompts`.
        answers: token ids, one answer to each prompt.
        images: numbers of pictures, from 0, which all prompts have; None: all that each has.
        rows: who does not see them, see `BlindRows`; by default everybody but the pictures themselves.
        layers: in which they are invisible; None: all.
        places: of parts of composed pictures, instead of the whole pictures.

    Raises:
        ConfigError: a prompt has no such picture, or there are no such rows.
        DataError: an answer has no token, or there is not one for each prompt.
        ModelError: the model's attention cannot be changed, or takes no input ids.
    """
    if len(answers) != len(encoded.image_tokens) or not all(len(answer) for answer in answers):
        raise DataError(f"expected an answer of at least one token to each of {len(encoded.image_tokens)} prompts")
    if "input_ids" not in encoded.inputs:
        raise ModelError("a given answer can be read only in models that take input ids")
    for index, answer in enumerate(answers):
        if image_token_id(model) in answer:
            raise DataError(f"answer {index} holds the token that stands for pictures; expected text only")
    found = places_of(encoded) if places is None else places
    if images is not None:
        found.check(images)
    moved = found.unpadded(encoded.inputs["attention_mask"].sum(1))
    whole = _run(model, encoded, answers)
    losses: list[dict[int, float]] = [{} for _ in answers]
    for image in range(max(map(len, found.images))) if images is None else images:
        asked = [index for index, part in enumerate(found.images) if image < len(part) and bool(part[image].any())]
        hidden = partial(reweighting, model, hidden_images(moved, [image], rows), layers=layers)
        for index, without in enumerate(_run(model, encoded, answers, hidden) if asked else []):
            if index in asked:
                losses[index][image] = whole[index].logp - without.logp
    return [Knockout(each.logp, each.tokens, loss) for each, loss in zip(whole, losses, strict=True)]


def _run(
    model: Any,
    encoded: Encoded,
    answers: Sequence[Sequence[int]],
    within: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> list[Likelihood]:
    with torch.inference_mode(), within():
        return in_one_pass(model, encoded.inputs, answers)


def knockout_all(
    samples: Sequence[Sample],
    responses: Sequence[str | Sequence[int]],
    model: Any,
    processor: Any,
    settings: ScoreSettings | None = None,
    *,
    open_image: OpenImage,
    images: Sequence[int] | None = None,
    rows: BlindRows | Sequence[BlindRows] = EVERYWHERE,
    layers: Sequence[int] | None = None,
) -> Iterator[Knockout]:
    """What responses to samples lose without each of their pictures (parts of composed pictures), in input order.

    Args:
        samples: the prompts.
        responses: for each a text, which the chat template turns into the assistant's turn, or token ids as they are.
        settings: batch size and view, as for `mia_attention.score`.
        images, rows, layers: as for `knockout`.

    Raises:
        DataError: a picture cannot be used, or a response has no token.
        ConfigError, ModelError: as `knockout`.
    """
    if len(samples) != len(responses):
        raise DataError(f"expected a response for each of {len(samples)} samples, got {len(responses)}")
    said = [_ids(sample, text, model, processor) for sample, text in zip(samples, responses, strict=True)]
    options: dict[str, Any] = {"images": images, "rows": rows, "layers": layers}
    found = try_knockouts(samples, said, model, processor, settings or ScoreSettings(), open_image=open_image, **options)
    yield from all_used(found)


def try_knockouts(
    samples: Sequence[Sample],
    answers: Sequence[Sequence[int]],
    model: Any,
    processor: Any,
    settings: ScoreSettings,
    *,
    open_image: OpenImage,
    **options: Any,
) -> Iterator[Knockout | Skipped]:
    """What answers in token ids lose without each picture, or why a sample cannot be used; `options` as for `knockout`."""
    scorer = Scorer(model, processor, settings, open_image, readouts=[0])
    said = {sample.id: answer for sample, answer in zip(samples, answers, strict=True)}

    def run(prepared: Prepared) -> list[Knockout | Skipped]:
        mine = [said[sample.id] for sample in prepared.samples]
        return prepared.usable.in_order(of_prepared(model, prepared, mine, **options))

    yield from run_in_order(samples, settings.batch_size, scorer.prepare, run, lambda sample: sample)


def of_prepared(
    model: Any,
    prepared: Prepared,
    answers: Sequence[Sequence[int]],
    *,
    images: Sequence[int] | None = None,
    rows: BlindRows | Sequence[BlindRows] = EVERYWHERE,
    layers: Sequence[int] | None = None,
) -> list[Knockout]:
    """`knockout` of a batch that a `Scorer` has prepared, the parts of composed pictures taken for pictures."""
    if prepared.encoded is None:
        return []
    places = part_places(prepared.samples, prepared.columns, prepared.encoded)
    if images is not None:
        places.check(images, [sample.id for sample in prepared.samples])
    return knockout(model, prepared.encoded, answers, images=images, rows=rows, layers=layers, places=places)


def _ids(sample: Sample, response: str | Sequence[int], model: Any, processor: Any) -> list[int]:
    try:
        ids = said_ids(sample, response, model, processor, end=True)
    except DataError as error:
        raise DataError(f"sample {sample.id}: {error}") from error
    if not ids:
        raise DataError(f"sample {sample.id}: the response has no token, so nothing can be lost")
    return ids
