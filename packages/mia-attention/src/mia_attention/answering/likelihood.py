"""How likely a model holds given answers, for instance the options of a multiple-choice question."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mia_augment import (
    MOST_LOGITS,
    DataError,
    ModelError,
    Skipped,
    barred_tokens,
    before_the_head,
    behind_start,
    logits_at,
    text_config,
)
from mia_augment.images import OpenImage
from mia_augment.prompting import answer_ids, stop_ids
from torch import Tensor

from mia_attention.answering.batches import Prompt, run_in_order
from mia_attention.answering.model_view import encode_prompts
from mia_attention.answering.prompt_cache import append_answers, copied, empty_cache, fill, go_on, why_not_shared
from mia_attention.answering.responses import all_used
from mia_attention.answering.usable import Usable, encode_usable
from mia_attention.models.families import adapter_of
from mia_attention.models.inputs import Encoded


@dataclass(frozen=True)
class Likelihood:
    """Log-prob of an answer, teacher-forced.

    Attributes:
        logp: sum over the answer's tokens, in nats.
        tokens: their number.
        token_logps: of each token, given those before it.
    """

    logp: float
    tokens: int
    token_logps: tuple[float, ...] = ()


_AT_ONCE = 128
"""Tokens whose logits are normalised together: with a vocabulary of 150,000 words they take 77 MB in fp32."""
GivenAnswer = str | Sequence[int]
"""A text, or token ids as they are."""
PromptAndAnswers = tuple[Prompt, Sequence[GivenAnswer]]
PreparedAnswers = tuple[Usable[tuple[Encoded, list[list[list[int]]]]], list[str]]
"""What of a batch can be used, with the answers' token ids; and the ids of their prompts."""


def likelihoods(
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[GivenAnswer]],
    model: Any,
    processor: Any,
    *,
    open_image: OpenImage,
    batch_size: int = 8,
) -> Iterator[list[Likelihood]]:
    """How likely each prompt's answers are, in input order.

    A prompt is encoded once for all of its answers, and run once in models whose cache can be read on.

    Args:
        answers: for each prompt, texts (as the chat template writes them behind the prompt, without what ends the turn) or
            token ids as they are.

    Raises:
        DataError: numbers of prompts and answers differ, an answer is empty or holds the token that stands for pictures, or a
            picture or prompt cannot be used.
        ModelError: the model takes no input ids, or its outputs are NaN.
    """
    yield from all_used(try_likelihoods(prompts, answers, model, processor, open_image=open_image, batch_size=batch_size))


def try_likelihoods(
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[GivenAnswer]],
    model: Any,
    processor: Any,
    *,
    open_image: OpenImage,
    batch_size: int = 8,
) -> Iterator[list[Likelihood] | Skipped]:
    """How likely each prompt's answers are, in input order; or why they cannot be used.

    Raises:
        DataError: numbers of prompts and answers differ.
        ModelError: as `likelihoods`.
    """
    if len(prompts) != len(answers):
        raise DataError(f"expected answers for each of {len(prompts)} prompts, got {len(answers)}")
    entries = list(zip(prompts, answers, strict=True))
    prepare = functools.partial(_prepare, model, processor, open_image)
    run = functools.partial(_run, model)
    yield from run_in_order(entries, batch_size, prepare, run, lambda entry: entry[0])


def _prepare(model: Any, processor: Any, open_image: OpenImage, batch: Sequence[PromptAndAnswers]) -> PreparedAnswers:
    def encode(asked: Sequence[PromptAndAnswers]) -> tuple[Encoded, list[list[list[int]]]]:
        said = [[_ids(prompt, answer, model, processor) for answer in answers] for prompt, answers in asked]
        images = [[open_image(name) for name in prompt.images] for prompt, _ in asked]
        return encode_prompts(model, processor, [prompt.prompt for prompt, _ in asked], images), said

    ids = [prompt.id for prompt, _ in batch]
    usable = encode_usable(batch, ids, encode)
    if usable.encoded is not None and "input_ids" not in usable.encoded[0].inputs:
        raise ModelError("given answers can be scored only for models that take input ids")
    return usable, [ids[index] for index in usable.kept]


def _ids(prompt: Prompt, answer: GivenAnswer, model: Any, processor: Any) -> list[int]:
    ids = said_ids(prompt, answer, model, processor, end=False)
    if not ids or (adapter_of(model) is None and set(barred_tokens(model)) & set(ids)):
        raise DataError(f"expected an answer of at least one token and without pictures, got {answer!r}")
    return ids


def said_ids(prompt: Prompt, answer: GivenAnswer, model: Any, processor: Any, *, end: bool) -> list[int]:
    """Token ids of an answer: as they are, or of a text, as the chat template writes it behind the prompt.

    Args:
        end: with the tokens that end the turn.

    Raises:
        DataError: the answer is empty or holds a token that ends a turn.
    """
    if not isinstance(answer, str):
        return list(answer)
    if adapter_of(model) is not None:  # chat formatting is the adapter's own
        tokenizer = processor.tokenizer
        return [*tokenizer(answer, add_special_tokens=False).input_ids, *([tokenizer.eos_token_id] if end else [])]
    return answer_ids(processor, prompt.prompt, answer, stops=stop_ids(model, processor), end=end)


def _run(model: Any, prepared: PreparedAnswers) -> list[list[Likelihood] | Skipped]:
    usable, ids = prepared
    if usable.encoded is None:
        return usable.in_order([])
    return usable.in_order(_measured(model, *usable.encoded, ids))


def _measured(
    model: Any, encoded: Encoded, said: Sequence[Sequence[Sequence[int]]], names: Sequence[str]
) -> list[list[Likelihood]]:
    """The first answers of all prompts, then the second ..; shorter lists are filled with an empty answer."""
    turns = [[[] if answer is None else answer for answer in turn] for turn in itertools.zip_longest(*said)]
    start = encoded.prompt_length - 1
    with torch.inference_mode():
        if len(turns) > 1 and why_not_shared(model, encoded.inputs, start) is None:
            found = _on_cache(model, encoded.inputs, turns, start)
        else:
            found = [in_one_pass(model, encoded.inputs, tails) for tails in turns]
    for each_turn in found:
        for name, likelihood in zip(names, each_turn, strict=True):
            if likelihood.logp != likelihood.logp:
                raise ModelError(f"sample {name}: the model's outputs are NaN; try another dtype")
    return [[each for each in row if each.tokens] for row in zip(*found, strict=True)]


def _on_cache(
    model: Any, inputs: Mapping[str, Any], turns: Sequence[Sequence[Sequence[int]]], start: int
) -> list[list[Likelihood]]:
    """The prompts run once, but for their last token, which comes with each turn's answers."""
    cache = empty_cache(model)
    fill(cache, model, inputs, start)
    out = []
    for tails in turns:
        owners = [row for row, tail in enumerate(tails) if tail]  # prompts with fewer answers wait
        said = [tails[row] for row in owners]
        logits: Tensor = go_on(model, inputs, owners, said, copied(cache), start).logits
        found = dict(zip(owners, _sums(logits, [range(len(tail)) for tail in said], said), strict=True))
        out.append([found.get(row, Likelihood(0.0, 0)) for row in range(len(tails))])
    return out


def in_one_pass(model: Any, inputs: Mapping[str, Any], tails: Sequence[Sequence[int]]) -> list[Likelihood]:
    """One given answer behind each prompt, all in one pass; logits at the answers' positions alone."""
    if getattr(model.config, "is_encoder_decoder", False):
        return _decoded(model, inputs, tails)
    whole, lengths = append_answers(inputs, tails)
    before = [range(int(length) - 1, int(length) - 1 + len(tail)) for length, tail in zip(lengths, tails, strict=True)]
    kept = sorted({position for places in before for position in places})
    keep = torch.tensor(kept, device=lengths.device)
    column = {position: index for index, position in enumerate(kept)}
    places = [[column[place] for place in each] for each in before]
    # Rows of different lengths are answered at different positions, and logits are kept at all of them in every row.
    if len(tails) * len(kept) * getattr(text_config(model), "vocab_size", 0) > MOST_LOGITS:
        found = before_the_head(model, whole, keep, use_cache=False)
        if found is not None:
            return _sums(found[0].logits, places, tails, found[1])
    return _sums(logits_at(model, keep, whole, use_cache=False), places, tails)


def _decoded(model: Any, inputs: Mapping[str, Any], tails: Sequence[Sequence[int]]) -> list[Likelihood]:
    """Likewise, with the prompts in an encoder and the answers in a decoder."""
    rows = [torch.tensor(list(tail), dtype=torch.long, device=model.device) for tail in tails]
    answers = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    if not answers.shape[1]:
        return [Likelihood(0.0, 0) for _ in tails]
    logits: Tensor = model(**inputs, decoder_input_ids=behind_start(model, answers), use_cache=False).logits
    return _sums(logits, [range(len(tail)) for tail in tails], tails)


def _sums(
    logits: Tensor,
    places: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    head: Callable[[Tensor], Tensor] | None = None,
) -> list[Likelihood]:
    """log p(answer | prompt) = sum over t of log p(token t | prompt, tokens before t).

    Only these tokens' rows are normalised, and only their log-probs leave the device: a row over all words is large.

    Args:
        logits: (prompts, positions, vocabulary).
        places: of each answer's tokens, the position that predicts it.
        answers: token ids.
        head: gives the logits, where `logits` are what the output head is given.
    """
    owners = torch.tensor([row for row, tail in enumerate(answers) for _ in tail], device=logits.device)
    columns = torch.tensor([place for row in places for place in row], device=logits.device)
    tokens = torch.tensor([token for tail in answers for token in tail], device=logits.device)
    if not len(tokens):
        return [Likelihood(0.0, 0) for _ in answers]
    found: list[float] = []
    for some in torch.arange(len(tokens), device=logits.device).split(_AT_ONCE):
        rows = logits[owners[some], columns[some]]  # (tokens, vocabulary)
        rows = (rows if head is None else head(rows)).float()
        said = tokens[some].to(rows.device)  # a model that is spread has its head elsewhere than its last layer
        found += (rows.gather(1, said[:, None])[:, 0] - rows.logsumexp(1)).tolist()
    each = iter(found)
    each_answer = [tuple(itertools.islice(each, len(tail))) for tail in answers]
    return [Likelihood(sum(logps), len(logps), logps) for logps in each_answer]
