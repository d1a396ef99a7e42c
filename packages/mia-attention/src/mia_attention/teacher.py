"""Attention of given answers, whoever wrote them: one pass over prompt and answer that ends after the last layer needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from mia_augment.errors import DataError, ModelError
from mia_augment.records import Attention, Sample
from torch import Tensor

from mia_attention.inputs import Encoded, image_token_id
from mia_attention.readers import Reader
from mia_attention.responses import OpenImage
from mia_attention.rows import answer_rows
from mia_attention.scoring import Prepared, Scorer
from mia_attention.settings import ScoreSettings

PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""Inputs with a value for every position of the prompt."""


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

    For answers of another model or of an inference server that shows no attention, and for ground truths.

    Args:
        samples: the prompts.
        responses: for each a text, to which the end-of-sequence token is added, or token ids as they are.
        model, processor, settings, open_image: as for `mia_attention.score`; of the settings layer, rows and view count.

    Raises:
        DataError: a picture cannot be used, or an answer holds the token that stands for pictures.
        ModelError: the model cannot be read.
    """
    scorer = Scorer(model, processor, settings, open_image)
    pairs = zip(samples, responses, strict=True)
    while batch := list(islice(pairs, settings.batch_size)):
        prepared = scorer.prepare([sample for sample, _ in batch])
        if prepared.skipped:
            raise DataError(f"sample {prepared.skipped[0].id}: {prepared.skipped[0].reason}")
        ids = [_ids(sample, response, model, processor) for sample, response in batch]
        spread = _spread(model, scorer.reader(), prepared, ids, settings)
        yield from (scorer.attention(index, prepared, spread) for index in range(len(batch)))


def append_answers(encoded: Encoded, answers: Sequence[Sequence[int]]) -> tuple[dict[str, Any], Tensor]:
    """Prompts with answers behind them, padded on the right, so that positions count from 0 in every row.

    Returns:
        The model's inputs, and (batch,) how long each prompt is.
    """
    lengths = encoded.inputs["attention_mask"].sum(1)
    inputs = dict(encoded.inputs)
    for name in PER_TOKEN:
        if name in inputs:
            rows = [
                torch.cat([row[row.shape[0] - int(length) :], _filled(name, answer, row)])
                for row, length, answer in zip(inputs[name], lengths, answers, strict=True)
            ]
            inputs[name] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return inputs, lengths


def _filled(name: str, answer: Sequence[int], like: Tensor) -> Tensor:
    """An answer's part of an input: its ids, ones for the mask, zeros (text) for token types."""
    values = {"input_ids": list(answer), "attention_mask": [1] * len(answer)}.get(name, [0] * len(answer))
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def _ids(sample: Sample, response: str | Sequence[int], model: Any, processor: Any) -> list[int]:
    if isinstance(response, str):
        tokenizer = processor.tokenizer
        ids = [*tokenizer(response, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    else:
        ids = list(response)
    if image_token_id(model) in ids:
        raise DataError(f"sample {sample.id}: the answer holds the token that stands for pictures; expected text only")
    return ids


def _spread(model: Any, reader: Reader, prepared: Prepared, ids: Sequence[Sequence[int]], settings: ScoreSettings) -> Tensor:
    """Mean attention of each answer's rows over the positions of the left-padded prompt, (batch, prompt length), on the CPU."""
    encoded = prepared.encoded
    if encoded is None or "input_ids" not in encoded.inputs:
        raise ModelError("given answers can be read only for models that take input ids; answer with `score` instead")
    inputs, lengths = append_answers(encoded, ids)
    with reader.reading((0, None), stop=True), torch.inference_mode():
        model(**inputs, use_cache=False)
    padding = encoded.prompt_length - lengths
    counts = torch.tensor([len(answer) for answer in ids], device=lengths.device)
    if settings.rows == "question":
        spans = torch.tensor(encoded.question, device=lengths.device) - padding[:, None]
        positions = torch.arange(inputs["input_ids"].shape[1], device=lengths.device)
        own = (positions >= spans[:, :1]) & (positions < spans[:, 1:])
    else:
        own = answer_rows(settings.rows, lengths, counts, inputs["input_ids"].shape[1])
    spread = reader.spread(own, reader.readouts[0])
    out = torch.zeros(len(ids), encoded.prompt_length)
    for row, (shift, length) in enumerate(zip(padding.tolist(), lengths.tolist(), strict=True)):
        out[row, shift:] = spread[row, :length].float().cpu()
    return out
