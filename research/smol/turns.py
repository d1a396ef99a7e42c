"""Training rows of single pictures: a header with the picture, then conversations about it, each blind to the others."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import build
import scenes
import torch
from tower import to_pixels

HEADER = f"<|im_start|>system\n{build.SYSTEM}<|im_end|>\n<|im_start|>user\n{build.IMAGE}\n"
ASK = "{}<|im_end|>\n<|im_start|>assistant\n"
NEXT = "\n<|im_start|>user\n" + ASK
END = "<|im_end|>"
KINDS = ("name", "left", "right", "beside", "background", "count", "color", "caption")


@dataclass(frozen=True)
class Turn:
    kind: str
    question: str
    answer: str
    value: str
    """Words of the answer by which it is judged."""


@dataclass
class Row:
    ids: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    segment: list[int] = field(default_factory=list)
    """0: the header; else which conversation"""
    labels: list[int] = field(default_factory=list)
    value_of: list[int] = field(default_factory=list)
    """Kind of question, by index in KINDS, at the positions that predict a value; else -1"""


@dataclass(frozen=True)
class Batch:
    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    """(batch, 1, length, length), added to the scores"""
    labels: torch.Tensor
    """The token to predict at each position, -100 where none is"""
    value_of: torch.Tensor
    pixel_values: torch.Tensor


def conversations(picture: scenes.Picture, rng: random.Random, captions_only: bool) -> list[list[Turn]]:
    """Of one to three turns each."""

    def described() -> Turn:
        request, text = scenes.caption(picture.scene, rng)
        return Turn("caption", request, text, " ".join(picture.scene.objects))

    def asked() -> list[Turn]:
        found = scenes.questions(picture.scene, rng)
        return [Turn(q.kind, q.text, rng.choice(q.answers), q.value) for q in rng.sample(found, len(found))]

    if captions_only:
        return [[described()] for _ in range(2)]
    talks = [[turn] for turn in asked()]
    if len(picture.scene.objects) == 1:
        talks += [[turn] for turn in asked() if turn.kind == "name"]
    if rng.random() < 0.35:
        talks.append(asked()[: rng.randint(2, 3)])
    if rng.random() < 0.25:
        talks.append([described()])
    return talks


def lay_out(talks: list[list[Turn]], tokenizer: Any) -> Row:
    """One row of a picture and its conversations."""
    image = tokenizer.convert_tokens_to_ids(build.IMAGE)
    header = [
        i for t in tokenizer(HEADER, add_special_tokens=False).input_ids for i in [t] * (build.TOKENS if t == image else 1)
    ]
    start = len(header)
    row = Row(list(header), list(range(start)), [0] * start, [-100] * start, [-1] * start)
    for number, talk in enumerate(talks, 1):
        ids: list[int] = []
        labels: list[int] = []
        values: list[int] = []
        for index, turn in enumerate(talk):
            question = tokenizer((NEXT if index else ASK).format(turn.question), add_special_tokens=False).input_ids
            answer = tokenizer(turn.answer + END, add_special_tokens=False, return_offsets_mapping=True)
            at = turn.answer.find(turn.value)
            in_value = [at >= 0 and a < at + len(turn.value) and b > at for a, b in answer.offset_mapping]
            ids += question + answer.input_ids
            labels += [-100] * len(question) + answer.input_ids
            values += [-1] * len(question) + [KINDS.index(turn.kind) if inside else -1 for inside in in_value]
        row.ids += ids
        row.position += range(start, start + len(ids))
        row.segment += [number] * len(ids)
        row.labels += [*labels[1:], -100]
        row.value_of += [*values[1:], -1]
    return row


def collate(pictures: list[scenes.Picture], talks: list[list[list[Turn]]], tokenizer: Any) -> Batch:
    rows = [lay_out(talk, tokenizer) for talk in talks]
    length = max(len(row.ids) for row in rows)

    def padded(name: str, fill: int) -> torch.Tensor:
        return torch.tensor([getattr(row, name) + [fill] * (length - len(row.ids)) for row in rows])

    segment = padded("segment", -1)
    own = segment[:, :, None] == segment[:, None, :]
    header = (segment[:, None, :] == 0) & (segment[:, :, None] >= 0)
    allowed = (own | header) & torch.ones(length, length, dtype=torch.bool).tril() & (segment >= 0)[:, None, :]
    allowed |= torch.eye(length, dtype=torch.bool)
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.bfloat16).min)[:, None].bfloat16()
    return Batch(
        padded("ids", tokenizer.pad_token_id), padded("position", 0), mask, padded("labels", -100), padded("value_of", -1),
        to_pixels(pictures),
    )  # fmt: skip
