"""Attention of given answers to encoded prompts, read in the cheapest way that is right."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mia_augment import DataError, ModelError, Readout, Rows, image_token_id
from torch import Tensor
from transformers import Cache

from mia_attention.answering.prompt_cache import append_answers, cut, empty_cache, fill, go_on, why_not_cut, why_not_shared
from mia_attention.capture.gradients import gradient_rows, next_tokens
from mia_attention.capture.query_rows import answer_rows, question_rows
from mia_attention.capture.readers import Reader, reader_for
from mia_attention.readouts import GivenWay, readout_kind


@dataclass(frozen=True)
class Reading:
    """Attention of given answers.

    Attributes:
        spread: (answers, prompt length) float32 on the CPU: mean attention of each answer's rows over the positions of its
            left-padded prompt; 0 where it has no row.
        way, reason: how it was read, and why so.
    """

    spread: Tensor
    way: GivenWay
    reason: str


def read_answers(
    model: Any,
    inputs: Mapping[str, Any],
    answers: Sequence[Sequence[int]],
    readout: Readout,
    *,
    rows: Rows = "generated",
    prompts: Sequence[int] | None = None,
    cache: Cache | None = None,
    question: Sequence[tuple[int, int]] | None = None,
    value_weighted: bool = False,
) -> Reading:
    """Where the model looks if it is made to say given answers. ::

        out = model.generate(**inputs, return_dict_in_generate=True)
        read_answers(model, inputs, out.sequences[:, length:].tolist(), 16, cache=out.past_key_values)

    All ways give the same numbers but for rounding (1e-6 in float32).

    Args:
        model: a transformers model.
        inputs: left-padded prompts with their pictures, as for `generate`.
        answers: token ids of each answer.
        readout: see `mia_attention.readouts`.
        rows: query rows.
        prompts: which prompt each answer is to, by its place in `inputs`; one answer each, in order, if None.
        cache: what `generate` has left for these `inputs`; it is not changed.
        question: for the rows ``question``, from where to where each prompt's question stands.
        value_weighted: weight attention by the length of the value vectors.

    Raises:
        DataError: numbers of answers and prompts do not fit, an answer holds a visual token, or `question` is missing.
        ModelError: the model cannot be read or takes no input ids.
    """
    if "input_ids" not in inputs:
        raise ModelError("given answers can be read only for models that take input ids; answer with `score` instead")
    count, length = inputs["input_ids"].shape
    owners = list(range(count)) if prompts is None else list(prompts)
    if len(owners) != len(answers) or not set(owners) <= set(range(count)):
        raise DataError(f"expected one of {count} prompts for each of {len(answers)} answers, got {owners}")
    if rows == "question" and (question is None or len(question) != count):
        raise DataError(f"rows 'question': expected the place of each of {count} questions, got {question}")
    for index, answer in enumerate(answers):
        if image_token_id(model) in answer:
            raise DataError(f"answer {index} holds the token that stands for pictures; expected text only")
    start = length - int(rows == "predicting")
    way, reason = choose_way(model, inputs, len(answers), readout, rows, cache)
    if way == "forward_and_back":
        return Reading(_in_turns(inputs, owners, answers, rows, question, partial(_by_gradient, model)), way, reason)
    reader = reader_for(model, [readout], value_weighted=value_weighted)
    one_pass = partial(_one_pass, model, reader)
    with torch.inference_mode():
        if way == "prompt_alone":
            spread = _in_turns(inputs, range(count), [[]] * count, rows, question, one_pass)[owners]
        elif way == "one_pass":
            spread = _in_turns(inputs, owners, answers, rows, question, one_pass)
        else:
            usable = cache if way == "generate_cache" else None
            spread = _on_cache(model, inputs, owners, answers, rows, reader, usable, start)
    return Reading(spread, way, reason)


def choose_way(
    model: Any, inputs: Mapping[str, Any], answers: int, readout: Readout, rows: Rows, cache: Cache | None = None
) -> tuple[GivenWay, str]:
    """The way that runs the fewest tokens among those that are right, and why.

    Args:
        model, inputs, readout, rows, cache: as for `read_answers`.
        answers: their number.
    """
    prompts, length = inputs["input_ids"].shape
    start = length - int(rows == "predicting")
    kind = readout_kind(readout)
    if kind.measure is not None:
        raise ModelError(f"{readout}: is measured from samples with their pictures; use mia_attention.attend")
    if kind.way is not None and (kind.way != "one_pass" or rows != "question"):
        return kind.way, kind.why
    if rows == "question":
        return "prompt_alone", "what the question looks at does not depend on the answer"
    if (unshared := why_not_shared(model, inputs, start)) is not None:
        return "one_pass", unshared
    problem = None if cache is None else why_not_cut(cache, prompts, start)
    if cache is not None and problem is None:
        return "generate_cache", "only the answers are run, no picture is encoded again"
    but = "" if problem is None else f"; the cache given cannot be used: {problem}"
    if answers > prompts:
        return "shared_prompt", f"{answers} answers to {prompts} prompts: each prompt is run once" + but
    return "one_pass", "a prompt with one answer gains nothing from a cache" + but


Run = Callable[[Mapping[str, Any], Tensor, Tensor, Sequence[Sequence[int]]], Tensor]
"""Spread of each sequence's rows, (batch, width): of a model's inputs, the rows, the prompts' lengths and the answers."""


def _in_turns(
    inputs: Mapping[str, Any],
    owners: Sequence[int],
    answers: Sequence[Sequence[int]],
    rows: Rows,
    question: Sequence[tuple[int, int]] | None,
    run: Run,
) -> Tensor:
    """Prompts with answers behind them, (answers, length); several answers to a prompt take turns."""
    count, length = inputs["input_ids"].shape
    out = torch.zeros(len(answers), length)
    numbers: list[list[int]] = [[index for index, owner in enumerate(owners) if owner == prompt] for prompt in range(count)]
    for turn in itertools.zip_longest(*numbers):
        said: list[Sequence[int]] = [[] if index is None else answers[index] for index in turn]
        whole, lengths = append_answers(inputs, said)
        own = given_rows(rows, lengths, said, whole["input_ids"].shape[1], length, question)
        spread = left_padded(run(whole, own, lengths, said), lengths, length)
        for index, row in zip(turn, spread, strict=True):
            if index is not None:
                out[index] = row
    return out


def _one_pass(
    model: Any, reader: Reader, whole: Mapping[str, Any], own: Tensor, lengths: Tensor, said: Sequence[Sequence[int]]
) -> Tensor:
    with reader.reading((0, None), stop=True):
        model(**whole, use_cache=False)
    return reader.spread(own, reader.readouts[0])


def _by_gradient(model: Any, whole: Mapping[str, Any], own: Tensor, lengths: Tensor, said: Sequence[Sequence[int]]) -> Tensor:
    targets = next_tokens(lengths.tolist(), said, own.shape[1]).to(lengths.device)
    return gradient_rows(model, whole, targets, own)


def given_rows(
    rows: Rows,
    lengths: Tensor,
    said: Sequence[Sequence[int]],
    width: int,
    length: int,
    question: Sequence[tuple[int, int]] | None,
) -> Tensor:
    """Query rows in sequences that begin at position 0, (batch, width)."""
    if rows == "question":
        spans = torch.tensor(question, device=lengths.device) - (length - lengths)[:, None]
        return question_rows(spans, width)
    return answer_rows(rows, lengths, torch.tensor([len(answer) for answer in said], device=lengths.device), width)


def left_padded(spread: Tensor, lengths: Tensor, length: int) -> Tensor:
    """Columns of prompts that begin at position 0, (batch, >= length), at their left-padded places, on the CPU."""
    spread = spread.float().cpu()
    out = torch.zeros(len(spread), length)
    for row, real in enumerate(lengths.tolist()):
        out[row, length - real :] = spread[row, :real]
    return out


def _on_cache(
    model: Any,
    inputs: Mapping[str, Any],
    owners: Sequence[int],
    answers: Sequence[Sequence[int]],
    rows: Rows,
    reader: Reader,
    cache: Cache | None,
    start: int,
) -> Tensor:
    """Run the answers on a cache of the prompts' first `start` positions, which is filled if there is none."""
    filled = empty_cache(model) if cache is None else cut(cache, start)
    if cache is None:
        with reader.reading((0, 0), stop=True):
            fill(filled, model, inputs, start)
    with reader.reading((start, None), stop=True, past=start):
        go_on(model, inputs, owners, answers, filled, start)
    length = inputs["input_ids"].shape[1]
    lengths = torch.tensor([len(answer) for answer in answers], device=inputs["input_ids"].device)
    own = answer_rows(rows, torch.full_like(lengths, length), lengths, length + int(lengths.max()))
    return reader.spread(own, reader.readouts[0])[:, :length].float().cpu()
