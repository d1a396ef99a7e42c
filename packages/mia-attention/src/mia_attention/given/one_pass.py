"""Our model made to say answers from elsewhere: their log-probs and attention from one pass over prompt and answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from mia_augment import DataError, ModelError, Rows, Skipped, barred_tokens
from mia_augment.prompting import end_tokens
from torch import Tensor

from mia_attention.answering.batches import Prompt
from mia_attention.answering.likelihood import in_one_pass, said_ids
from mia_attention.answering.responses import Response
from mia_attention.capture.given_answers import given_rows, left_padded
from mia_attention.capture.readers import Reader
from mia_attention.given.said import GivenAnswers, Said
from mia_attention.models.families import adapter_of
from mia_attention.models.inputs import Encoded


class GivenTurn(NamedTuple):
    """An answer from elsewhere, in our model's tokens."""

    id: str
    text: str
    ids: list[int]


def turn(prompt: Prompt, said: Said, model: Any, processor: Any) -> GivenTurn:
    """What was said to a prompt, in our model's tokens.

    Raises:
        DataError: nothing was said, the answer holds the token that stands for pictures, or ids that the model has not.
    """
    ids = emitted(prompt, said, model, processor)
    size = model.get_input_embeddings().num_embeddings
    if (top := max(ids)) >= size:
        raise DataError(f"the answer holds the token id {top}, of {size} that the model has: is it another model's answer?")
    if adapter_of(model) is None and set(barred_tokens(model)) & set(ids):
        raise DataError("the answer holds the token that stands for pictures; expected text only")
    return GivenTurn(prompt.id, said.text or processor.tokenizer.decode(ids, skip_special_tokens=True).strip(), ids)


def say(model: Any, encoded: Encoded, turns: Sequence[GivenTurn]) -> list[Response]:
    """The answers as if our model had given them, with its own log-probs.

    Raises:
        ModelError: the model takes no input ids, or its outputs are NaN.
    """
    if "input_ids" not in encoded.inputs:
        raise ModelError("answers from elsewhere can be read only by models that take input ids; leave score.answers out")
    with torch.inference_mode():
        found = in_one_pass(model, encoded.inputs, [each.ids for each in turns])
    responses = []
    for each, likelihood in zip(turns, found, strict=True):
        mean = likelihood.logp / likelihood.tokens
        if math.isnan(mean):
            raise ModelError(f"sample {each.id}: the model's outputs are NaN; try another dtype")
        responses.append(Response(each.text, tuple(each.ids), mean, math.exp(min(-mean, 700.0))))
    return responses


def say_and_look(
    model: Any, encoded: Encoded, turns: Sequence[GivenTurn], reader: Reader, rows: Rows
) -> tuple[list[Response], list[Tensor]]:
    """`say`, and from the same pass, per readout, the mean attention of each answer's rows, (batch, prompt length)."""
    inputs, ids = encoded.inputs, [each.ids for each in turns]
    with reader.reading((0, None)):
        responses = say(model, encoded, turns)
    lengths = inputs["attention_mask"].sum(1)
    width = int((lengths.cpu() + torch.tensor([len(each) for each in ids])).max())
    own = given_rows(rows, lengths, ids, width, encoded.prompt_length, encoded.question)
    spreads = [left_padded(reader.spread(own, readout), lengths, encoded.prompt_length) for readout in reader.readouts]
    return responses, spreads


def emitted(prompt: Prompt, said: Said, model: Any, processor: Any) -> list[int]:
    """Token ids of an answer as a model would have emitted them.

    Raises:
        DataError: it says nothing.
    """
    if said.ids and (not said.ended or not said.text or said.ids[-1] in end_tokens(model, processor)):
        return list(said.ids)
    if said.ids:  # some servers leave out the token that ended the answer
        whole, body = (said_ids(prompt, said.text, model, processor, end=end) for end in (True, False))
        return [*said.ids, *whole[len(body) :]]
    if not said.text:
        raise DataError("nothing was said: expected an answer of at least one word")
    return said_ids(prompt, said.text, model, processor, end=said.ended)


def responses_from(given: GivenAnswers, prompts: Sequence[Prompt], model: Any, processor: Any) -> Iterator[Response | Skipped]:
    """What is said to each prompt, in order, with the log-probs that are told (NaN where none are); or why nothing is."""
    given.ahead(prompts)
    for prompt in prompts:
        try:
            said = given.said(prompt)
            ids = emitted(prompt, said, model, processor)
        except DataError as error:
            yield Skipped(id=prompt.id, reason=str(error))
            continue
        mean = sum(said.logps) / len(said.logps) if said.logps else math.nan
        yield Response(said.text, tuple(ids), mean, math.exp(-mean))
