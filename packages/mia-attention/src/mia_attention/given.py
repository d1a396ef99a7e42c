"""Attention of given answers to encoded prompts, read in the cheapest way that is right."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from mia_augment.errors import DataError, ModelError
from mia_augment.records import Rows
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from mia_attention.adapters import adapter_of
from mia_attention.decoder import decoder_layers
from mia_attention.gradients import gradient_rows, next_tokens
from mia_attention.inputs import image_token_id
from mia_attention.readers import Reader, Readout, reader_for
from mia_attention.rows import answer_rows, question_rows

Way = Literal["one pass", "prompt alone", "shared prompt", "generate's cache", "forward and back"]
"""How given answers are read, each pass ending after the last layer needed: prompt and answer together; the prompt without an
answer; each prompt once and then its answers on its cache; or only the answers, on the cache that `generate` has left. Or
prompt and answer together through all layers, and back."""

PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""Inputs with a value for every position of the prompt."""


@dataclass(frozen=True)
class Reading:
    """Attention of given answers.

    Attributes:
        spread: (answers, prompt length) float32 on the CPU: mean attention of each answer's rows over the positions of its
            left-padded prompt; 0 where it has no row.
        way, reason: how it was read, and why so.
    """

    spread: Tensor
    way: Way
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
        readout: a layer, several (their mean), ``rollout`` or ``gradient`` (see `mia_attention.gradients`).
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
    if way == "forward and back":
        return Reading(_by_gradient(model, inputs, owners, answers, rows, question), way, reason)
    reader = reader_for(model, [readout], value_weighted=value_weighted)
    with torch.inference_mode():
        if way == "prompt alone" and question is not None:
            spread = _prompts_alone(model, inputs, question, reader)[owners]
        elif way == "one pass":
            spread = _one_pass(model, inputs, owners, answers, rows, reader)
        else:
            filled = (
                _cut(cache, start) if way == "generate's cache" and cache is not None else _fill(model, inputs, start, reader)
            )
            spread = _on_cache(model, inputs, owners, answers, rows, reader, filled, start)
    return Reading(spread, way, reason)


def while_answering(readout: object) -> str:
    """Why `mia_attention.score` reads while it answers, for any rows."""
    if readout == "gradient":
        return "after answering, in a pass over prompt and answer and back: the gradient needs the whole answer"
    if readout == "rollout":
        return "while answering: keeping all layers' queries costs less than a second pass, and no cache holds them"
    return "while answering: the rows pass by anyway; a second pass over prompt and answer would cost more"


def choose_way(
    model: Any, inputs: Mapping[str, Any], answers: int, readout: Readout, rows: Rows, cache: Cache | None = None
) -> tuple[Way, str]:
    """The way that runs the fewest tokens among those that are right, and why.

    Args:
        model, inputs, readout, rows, cache: as for `read_answers`.
        answers: their number.
    """
    prompts, length = inputs["input_ids"].shape
    start = length - int(rows == "predicting")
    if readout == "gradient":
        return "forward and back", "the gradient of the answer's log-prob"
    if rows == "question":
        return "prompt alone", "what the question looks at does not depend on the answer"
    if readout == "rollout":
        return "one pass", "rollout needs the queries of all positions, which no cache holds"
    if adapter_of(model) is not None or not _only_attention(model):
        return "one pass", "a cache can be read on only in models all of whose layers are transformers' attention"
    if bool((inputs["input_ids"][:, start:] == image_token_id(model)).any()):
        return "one pass", "a prompt ends with its picture, whose last token is to be read"
    problem = None if cache is None else _problem(cache, prompts, start)
    if cache is not None and problem is None:
        return "generate's cache", "only the answers are run, no picture is encoded again"
    but = "" if problem is None else f"; the cache given cannot be used: {problem}"
    if answers > prompts:
        return "shared prompt", f"{answers} answers to {prompts} prompts: each prompt is run once" + but
    return "one pass", "a prompt with one answer gains nothing from a cache" + but


def _only_attention(model: Any) -> bool:
    layers = decoder_layers(model)
    return len(layers) == max(layers) + 1


def _problem(cache: Cache, prompts: int, start: int) -> str | None:
    """Why a cache cannot be cut back to its first `start` positions; None if it can."""
    for index, layer in enumerate(cache.layers):
        if not isinstance(layer, DynamicLayer) or type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            return f"layer {index} is a {type(layer).__name__}, expected one that grows"
        if layer.keys is None or layer.get_seq_length() < start or layer.keys.shape[0] != prompts:
            return f"layer {index} does not hold {prompts} prompts of {start} positions"
        if isinstance(layer, DynamicSlidingWindowLayer) and layer.get_seq_length() >= layer.sliding_window:
            return f"layer {index} has a sliding window and has dropped its first keys"
    return None


Turn = tuple[dict[str, Any], Tensor, list[Sequence[int]], list[tuple[int, int]]]
"""Inputs of whole sequences, the prompts' lengths, the answers, and which prompt's row belongs to which answer."""


def _turns(inputs: Mapping[str, Any], owners: Sequence[int], answers: Sequence[Sequence[int]]) -> Iterator[Turn]:
    """Prompts with answers behind them; several answers to a prompt take turns."""
    count = inputs["input_ids"].shape[0]
    numbers: list[list[int]] = [[index for index, owner in enumerate(owners) if owner == prompt] for prompt in range(count)]
    for turn in itertools.zip_longest(*numbers):
        said = [[] if index is None else answers[index] for index in turn]
        whole, lengths = append_answers(inputs, said)
        yield whole, lengths, said, [(prompt, index) for prompt, index in enumerate(turn) if index is not None]


def _by_gradient(
    model: Any,
    inputs: Mapping[str, Any],
    owners: Sequence[int],
    answers: Sequence[Sequence[int]],
    rows: Rows,
    question: Sequence[tuple[int, int]] | None,
) -> Tensor:
    """Gradient x attention of each answer's rows, (answers, length)."""
    length = inputs["input_ids"].shape[1]
    out = torch.zeros(len(answers), length)
    for whole, lengths, said, chosen in _turns(inputs, owners, answers):
        width = whole["input_ids"].shape[1]
        own = _rows_of(rows, lengths, said, width, length, question)
        targets = next_tokens(lengths.tolist(), said, width).to(lengths.device)
        spread = _left_padded(gradient_rows(model, whole, targets, own), lengths, length)
        out[[index for _, index in chosen]] = spread[[prompt for prompt, _ in chosen]]
    return out


def _rows_of(
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


def _one_pass(
    model: Any,
    inputs: Mapping[str, Any],
    owners: Sequence[int],
    answers: Sequence[Sequence[int]],
    rows: Rows,
    reader: Reader,
) -> Tensor:
    length = inputs["input_ids"].shape[1]
    out = torch.zeros(len(answers), length)
    for whole, lengths, said, chosen in _turns(inputs, owners, answers):
        own = _rows_of(rows, lengths, said, whole["input_ids"].shape[1], length, None)
        spread = _run_whole(model, whole, lengths, own, reader, length)
        out[[index for _, index in chosen]] = spread[[prompt for prompt, _ in chosen]]
    return out


def _prompts_alone(model: Any, inputs: Mapping[str, Any], question: Sequence[tuple[int, int]], reader: Reader) -> Tensor:
    """The rows of each prompt's question, (prompts, length)."""
    count, length = inputs["input_ids"].shape
    whole, lengths = append_answers(inputs, [[]] * count)
    own = _rows_of("question", lengths, [[]] * count, whole["input_ids"].shape[1], length, question)
    return _run_whole(model, whole, lengths, own, reader, length)


def _run_whole(model: Any, whole: Mapping[str, Any], lengths: Tensor, own: Tensor, reader: Reader, length: int) -> Tensor:
    """One pass over sequences that begin at position 0; their prompts' columns at their left-padded places, on the CPU."""
    with reader.reading((0, None), stop=True):
        model(**whole, use_cache=False)
    return _left_padded(reader.spread(own, reader.readouts[0]), lengths, length)


def _left_padded(spread: Tensor, lengths: Tensor, length: int) -> Tensor:
    """Columns of prompts that begin at position 0, (batch, >= length), at their left-padded places, on the CPU."""
    spread = spread.float().cpu()
    out = torch.zeros(len(spread), length)
    for row, real in enumerate(lengths.tolist()):
        out[row, length - real :] = spread[row, :real]
    return out


def append_answers(inputs: Mapping[str, Any], answers: Sequence[Sequence[int]]) -> tuple[dict[str, Any], Tensor]:
    """Prompts with answers behind them, padded on the right, so that positions count from 0 in every row.

    Returns:
        The model's inputs, and (batch,) how long each prompt is.
    """
    lengths = inputs["attention_mask"].sum(1)
    whole = dict(inputs)
    for name in PER_TOKEN:
        if name in whole:
            rows = [
                torch.cat([row[row.shape[0] - int(length) :], _filled(name, answer, row)])
                for row, length, answer in zip(whole[name], lengths, answers, strict=True)
            ]
            whole[name] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return whole, lengths


def _filled(name: str, answer: Sequence[int], like: Tensor) -> Tensor:
    """An answer's part of an input: its ids, ones for the mask, zeros (text) for token types."""
    values = {"input_ids": list(answer), "attention_mask": [1] * len(answer)}.get(name, [0] * len(answer))
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def _positions(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Position ids of left-padded prompts as `generate` makes them, (..., prompts, length)."""
    made: Tensor = model._prepare_position_ids_for_generation(inputs["input_ids"], dict(inputs))
    return made


def _fill(model: Any, inputs: Mapping[str, Any], start: int, reader: Reader) -> Cache:
    """A cache of each prompt's first `start` positions, up to the last layer needed."""
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    part = {name: value[:, :start] if name in PER_TOKEN else value for name, value in inputs.items()}
    positions = _positions(model, inputs)[..., :start]
    with reader.reading((0, 0), stop=True):
        model(**part, position_ids=positions, past_key_values=cache, use_cache=True)
    return cache


def _cut(cache: Cache, start: int) -> Cache:
    """The first `start` positions of a cache; the cache itself stays as it is."""
    cut = copy.copy(cache)
    cut.layers = [copy.copy(layer) for layer in cache.layers]
    cut.crop(start - cache.get_seq_length())
    return cut


def _on_cache(
    model: Any,
    inputs: Mapping[str, Any],
    owners: Sequence[int],
    answers: Sequence[Sequence[int]],
    rows: Rows,
    reader: Reader,
    cache: Cache,
    start: int,
) -> Tensor:
    """Run the answers on a cache of the prompts' first `start` positions."""
    prompt_ids, prompt_mask = inputs["input_ids"][owners], inputs["attention_mask"][owners]
    length = prompt_ids.shape[1]
    ids = [torch.tensor(list(answer), dtype=prompt_ids.dtype) for answer in answers]
    tail = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(prompt_ids.device)
    lengths = torch.tensor([len(answer) for answer in answers], device=tail.device)
    steps = torch.arange(tail.shape[1], device=tail.device)
    real = (steps < lengths[:, None]).to(prompt_mask.dtype)
    positions = _positions(model, inputs)[..., owners, :]
    positions = torch.cat([positions, positions[..., -1:] + 1 + steps], -1)  # text follows: all axes count on
    if owners != list(range(len(inputs["input_ids"]))):
        cache.batch_select_indices(torch.tensor(owners, device=tail.device))
    with reader.reading((start, None), stop=True, past=start):
        model(
            input_ids=torch.cat([prompt_ids, tail], 1)[:, start:],
            attention_mask=torch.cat([prompt_mask, real], 1),
            position_ids=positions[..., start:],
            past_key_values=cache,
            use_cache=True,
        )
    own = answer_rows(rows, torch.full_like(lengths, length), lengths, length + tail.shape[1])
    return reader.spread(own, reader.readouts[0])[:, :length].float().cpu()
