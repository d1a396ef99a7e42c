"""Which positions of a batch are a sample's query rows."""

from __future__ import annotations

import torch
from mia_augment import Rows
from torch import Tensor

from mia_attention.models.inputs import Encoded

NO_ROW = {
    "generated": "no generated row: the answer has one token",
    "predicting": "no row predicts an answer",
    "question": "no question text after the last image",
}


def row_span(rows: Rows, encoded: Encoded) -> tuple[int, int | None]:
    """From, to (None: no end): the positions that any sample of the batch needs."""
    prompt = encoded.prompt_length
    if rows == "question":
        return min(start for start, _ in encoded.question or [(prompt, prompt)]), prompt
    return prompt - int(rows == "predicting"), None


def own_rows(rows: Rows, encoded: Encoded, lengths: Tensor, length: int) -> Tensor:
    """Where each sample's rows are in a batch that was answered from left-padded prompts.

    Args:
        rows: which rows.
        encoded: the prompts.
        lengths: (batch,) tokens of each answer.
        length: positions that went through the model.

    Returns:
        (batch, length) bool.
    """
    if rows == "question":
        return question_rows(torch.tensor(encoded.question, device=lengths.device), length)
    return answer_rows(rows, torch.full_like(lengths, encoded.prompt_length), lengths, length)


def question_rows(spans: Tensor, length: int) -> Tensor:
    """Positions from, to (half-open) of each sample's question, (batch, 2), as (batch, length) bool."""
    positions = torch.arange(length, device=spans.device)
    return (positions >= spans[:, :1]) & (positions < spans[:, 1:])


def answer_rows(rows: Rows, prompts: Tensor, answers: Tensor, length: int) -> Tensor:
    """Of an answer of T tokens (the end token included) after a prompt that ends at position P, the `generated` rows are the
    positions P to P + T - 2, the `predicting` ones P - 1 to P + T - 2.

    Args:
        prompts: (batch,) where each prompt ends.
        answers: (batch,) tokens of each answer.
        length: of the result.

    Returns:
        (batch, length) bool.
    """
    positions = torch.arange(length, device=prompts.device)
    first = prompts - int(rows == "predicting")
    return (positions >= first[:, None]) & (positions < (prompts + answers - 1)[:, None])
