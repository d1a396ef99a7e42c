"""Where a model looks if it is made to say given answers, whoever wrote them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from mia_augment import Attention, DataError, Sample, barred_tokens
from mia_augment.images import OpenImage

from mia_attention.answering.likelihood import said_ids
from mia_attention.capture.given_answers import read_answers
from mia_attention.models.families import adapter_of
from mia_attention.readouts import readout_kind, readout_of
from mia_attention.scoring.scorer import Scorer
from mia_attention.settings import ScoreSettings

logger = logging.getLogger(__name__)


def attend(
    samples: Iterable[Sample],
    responses: Iterable[str | Sequence[int]],
    model: Any,
    processor: Any,
    settings: ScoreSettings,
    *,
    open_image: OpenImage,
) -> Iterator[Attention]:
    """Where the model looks if it is made to say given answers, in input order.

    For answers of another model or of an inference server that shows no attention, and for ground truths. Several answers to
    one prompt cost little if the same sample comes with each of them in turn: a batch encodes and runs it once. Which way was
    taken, and why, is logged (see `mia_attention.read_answers`).

    Args:
        samples: the prompts.
        responses: for each a text, which the chat template turns into the assistant's turn (with what ends it), or token ids
            as they are.
        model, processor, settings, open_image: as for `mia_attention.score`; of the settings layer, rows and view count.

    Raises:
        DataError: a picture cannot be used, or an answer holds the token that stands for pictures.
        ModelError: the model cannot be read.
    """
    scorer = Scorer(model, processor, settings, open_image)
    readout = readout_of(model, settings)
    told: set[str] = set()
    pairs = zip(samples, responses, strict=True)
    while batch := list(islice(pairs, settings.batch_size)):
        asked = [sample for sample, _ in batch]
        answers = [_ids(sample, response, model, processor) for sample, response in batch]
        if (measure_answers := readout_kind(readout).measure) is not None:
            yield from measure_answers(scorer.answered(asked, answers))
            continue
        unique = [sample for index, sample in enumerate(asked) if sample not in asked[:index]]
        owners = [unique.index(sample) for sample in asked]
        prepared = scorer.prepare(unique)
        if prepared.encoded is None or prepared.usable.refused:
            [refused, *_] = prepared.usable.refused.values()
            raise DataError(f"sample {refused.id}: {refused.reason}")
        reading = read_answers(
            model,
            prepared.encoded.inputs,
            answers,
            readout,
            rows=settings.rows,
            prompts=owners,
            question=prepared.encoded.question,
            value_weighted=settings.value_weighted,
        )
        if reading.way not in told:
            told.add(reading.way)
            logger.info("given answers are read by %s: %s", reading.way, reading.reason)
        for index, owner in enumerate(owners):
            yield scorer.attention(owner, prepared, reading.spread[index])


def _ids(sample: Sample, response: str | Sequence[int], model: Any, processor: Any) -> list[int]:
    try:
        ids = said_ids(sample, response, model, processor, end=True)
    except DataError as error:
        raise DataError(f"sample {sample.id}: {error}") from error
    if adapter_of(model) is None and set(barred_tokens(model)) & set(ids):
        raise DataError(f"sample {sample.id}: the answer holds the token that stands for pictures; expected text only")
    return ids
