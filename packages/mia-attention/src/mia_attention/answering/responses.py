"""Greedy answers to multi-image prompts, without attention."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from mia_augment import ConfigError, DataError, Skipped, barred_tokens
from mia_augment.images import OpenImage
from mia_augment.prompting import end_tokens
from transformers import LogitsProcessor

from mia_attention.answering.batches import ItemT, Prompt, run_in_order
from mia_attention.answering.generate import Answers, check_finite, generate
from mia_attention.answering.model_view import encode_prompts
from mia_attention.answering.usable import Usable, encode_usable
from mia_attention.models.families import adapter_of
from mia_attention.models.inputs import Encoded

Within = Callable[[Any, Encoded], AbstractContextManager[None]]
"""From a model and a batch of prompts to what it answers them within, such as `delimiters_scaled`."""


@dataclass(frozen=True)
class Response:
    """A model's greedy answer."""

    text: str
    tokens: tuple[int, ...]
    """Emitted token ids, the end-of-sequence token included."""
    mean_logp: float
    """Mean log-prob of the emitted tokens in nats."""
    perplexity: float
    """exp(-mean_logp)."""


def respond(
    prompts: Iterable[Prompt],
    model: Any,
    processor: Any,
    *,
    open_image: OpenImage,
    batch_size: int = 8,
    max_new_tokens: int = 512,
) -> Iterator[Response]:
    """Answer each prompt greedily, in input order.

    Raises:
        DataError: a picture cannot be opened (from `open_image`), or the processor refuses it or the prompt.
        ModelError: the processor has no chat template, outputs are NaN, or memory does not suffice for one prompt.
    """
    found = try_respond(prompts, model, processor, open_image=open_image, batch_size=batch_size, max_new_tokens=max_new_tokens)
    yield from all_used(found)


def all_used(results: Iterable[ItemT | Skipped]) -> Iterator[ItemT]:
    """The results; DataError where a prompt was skipped."""
    for result in results:
        if isinstance(result, Skipped):
            raise DataError(f"sample {result.id}: {result.reason}")
        yield result


def try_respond(
    prompts: Iterable[Prompt],
    model: Any,
    processor: Any,
    *,
    open_image: OpenImage,
    batch_size: int = 8,
    max_new_tokens: int = 512,
    within: Within | None = None,
) -> Iterator[Response | Skipped]:
    """Answer each prompt greedily, in input order; or say why it cannot be used.

    Args:
        within: changes the model while it answers a batch.

    Raises:
        ModelError: as `respond`.
    """
    if batch_size < 1 or max_new_tokens < 1:
        raise ConfigError(f"expected batch_size and max_new_tokens of at least 1, got {batch_size} and {max_new_tokens}")
    prepare = functools.partial(_prepare, model, processor, open_image)
    run = functools.partial(_run, model, processor, max_new_tokens, within)
    yield from run_in_order(prompts, batch_size, prepare, run, lambda prompt: prompt)


def responses_of(answers: Answers, processor: Any) -> list[Response]:
    """Cut each answer at its end and decode it."""
    rows = [row[:length] for row, length in zip(answers.tokens.tolist(), answers.lengths.tolist(), strict=True)]
    words = [row[:-1] if row and row[-1] in answers.ends else row for row in rows]  # not every end counts as special
    texts = processor.tokenizer.batch_decode(words, skip_special_tokens=True)
    return [
        Response(text.strip(), tuple(row), mean, math.exp(-mean))
        for text, row, mean in zip(texts, rows, answers.mean_logps.tolist(), strict=True)
    ]


def answer(
    model: Any,
    processor: Any,
    encoded: Encoded,
    ids: Sequence[str],
    max_new_tokens: int,
    noise: LogitsProcessor | None = None,
) -> Answers:
    """Generate greedily (but for `noise`), never a visual token, and check that all log-probs are numbers."""
    answers = generate(
        model,
        encoded,
        max_new_tokens=max_new_tokens,
        barred=[] if adapter_of(model) else barred_tokens(model),
        ends=end_tokens(model, processor),
        pad_token_id=processor.tokenizer.pad_token_id,
        noise=noise,
    )
    check_finite(answers, ids)
    return answers


def _prepare(model: Any, processor: Any, open_image: OpenImage, batch: Sequence[Prompt]) -> tuple[Usable[Encoded], list[str]]:
    def encode(prompts: Sequence[Prompt]) -> Encoded:
        images = [[open_image(name) for name in prompt.images] for prompt in prompts]
        return encode_prompts(model, processor, [prompt.prompt for prompt in prompts], images)

    ids = [prompt.id for prompt in batch]
    usable = encode_usable(batch, ids, encode)
    return usable, [ids[index] for index in usable.kept]


def _run(
    model: Any,
    processor: Any,
    max_new_tokens: int,
    within: Within | None,
    prepared: tuple[Usable[Encoded], list[str]],
) -> list[Response | Skipped]:
    usable, ids = prepared
    if usable.encoded is None:
        return usable.in_order([])
    with within(model, usable.encoded) if within else contextlib.nullcontext():
        answers = answer(model, processor, usable.encoded, ids, max_new_tokens)
    return usable.in_order(responses_of(answers, processor))
