"""How likely a model holds given answers, for instance the options of a multiple-choice question."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mia_augment.errors import DataError, ModelError
from torch import Tensor

from mia_attention.adapters import adapter_of
from mia_attention.batching import Prompt, plan, run_batches, windows
from mia_attention.given import append_answers
from mia_attention.inputs import Encoded, image_token_id
from mia_attention.responses import OpenImage
from mia_attention.views import encode_prompts


@dataclass(frozen=True)
class Likelihood:
    """Log-prob of an answer, teacher-forced.

    Attributes:
        logp: sum over the answer's tokens, in nats.
        tokens: their number.
    """

    logp: float
    tokens: int


Answer = str | Sequence[int]
Prepared = tuple[Encoded, list[list[list[int]]], list[str]]


def likelihoods(
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[Answer]],
    model: Any,
    processor: Any,
    *,
    open_image: OpenImage,
    batch_size: int = 8,
) -> Iterator[list[Likelihood]]:
    """How likely each prompt's answers are, in input order; a prompt is encoded once and run once for each of its answers.

    Args:
        answers: for each prompt, texts (no end-of-sequence token is added) or token ids as they are.

    Raises:
        DataError: numbers of prompts and answers differ, an answer is empty or holds the token that stands for pictures, or a
            picture cannot be used.
        ModelError: the model takes no input ids, or its outputs are NaN.
    """
    if len(prompts) != len(answers):
        raise DataError(f"expected answers for each of {len(prompts)} prompts, got {len(answers)}")
    entries = list(zip(prompts, answers, strict=True))
    prepare = functools.partial(_prepare, model, processor, open_image)
    run = functools.partial(_run, model)
    for window in windows(entries, batch_size):
        batches = plan([prompt for prompt, _ in window], batch_size)
        found: dict[int, list[Likelihood]] = {}
        for batch, results in zip(batches, run_batches([[window[i] for i in b] for b in batches], prepare, run), strict=True):
            found.update(zip(batch, results, strict=True))
        yield from (found[index] for index in range(len(window)))


def _prepare(model: Any, processor: Any, open_image: OpenImage, batch: Sequence[tuple[Prompt, Sequence[Answer]]]) -> Prepared:
    names = [prompt.id for prompt, _ in batch]
    said = [[_ids(prompt, answer, model, processor) for answer in answers] for prompt, answers in batch]
    images = [[open_image(name) for name in prompt.images] for prompt, _ in batch]
    try:
        encoded = encode_prompts(model, processor, [prompt.prompt for prompt, _ in batch], images)
    except ValueError as error:
        raise DataError(f"one of the samples {', '.join(names)}: the model's processor refuses it: {error}") from error
    if "input_ids" not in encoded.inputs:
        raise ModelError("given answers can be scored only for models that take input ids")
    return encoded, said, names


def _ids(prompt: Prompt, answer: Answer, model: Any, processor: Any) -> list[int]:
    ids = list(processor.tokenizer(answer, add_special_tokens=False).input_ids) if isinstance(answer, str) else list(answer)
    if not ids or (adapter_of(model) is None and image_token_id(model) in ids):
        raise DataError(f"sample {prompt.id}: expected an answer of at least one token and without pictures, got {answer!r}")
    return ids


def _run(model: Any, prepared: Prepared) -> list[list[Likelihood]]:
    """One pass for the first answers of all prompts, one for the second ..; shorter lists are filled with an empty answer."""
    encoded, said, names = prepared
    out: list[list[Likelihood]] = [[] for _ in said]
    for turn in itertools.zip_longest(*said):
        tails = [[] if answer is None else answer for answer in turn]
        for row, likelihood in enumerate(_one_each(model, encoded, tails)):
            if likelihood.logp != likelihood.logp:
                raise ModelError(f"sample {names[row]}: the model's outputs are NaN; try another dtype")
            out[row] += [likelihood] if tails[row] else []
    return out


def _one_each(model: Any, encoded: Encoded, tails: Sequence[Sequence[int]]) -> list[Likelihood]:
    """log p(answer | prompt) = sum over t of log p(token t | prompt, tokens before t); logits at no other positions."""
    whole, lengths = append_answers(encoded.inputs, tails)
    before = [range(int(length) - 1, int(length) - 1 + len(tail)) for length, tail in zip(lengths, tails, strict=True)]
    kept = sorted({position for places in before for position in places})
    with torch.inference_mode():
        keep = torch.tensor(kept, device=lengths.device)
        logps: Tensor = model(**whole, use_cache=False, logits_to_keep=keep).logits.float().log_softmax(-1).cpu()
    column = {position: index for index, position in enumerate(kept)}
    return [
        Likelihood(float(logps[row, [column[place] for place in places], tail].sum()), len(tail))
        for row, (places, tail) in enumerate(zip(before, tails, strict=True))
    ]
