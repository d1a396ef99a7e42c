"""Training batches: one picture prompt, several questions about it side by side, each blind to the others."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from mia_augment.compose import canvas as compose
from mia_augment.compose import prompts
from mia_cli.drawn import drawing
from model import MEAN, STD
from PIL import Image
from transformers import PreTrainedTokenizerFast

GRID_STYLE = compose.GridStyle(cell=96, gap=20, label=18)
OBJECTS = (*drawing.ATTRIBUTES["shape"], *drawing.ATTRIBUTES["letter"])
QUESTIONS_PER_PROMPT = 8
Answer = Callable[[drawing.Scene, str], str]
"""Words the ground truth of a scene's attribute."""


@dataclass(frozen=True)
class Question:
    text: str
    """From the end of the picture header to the answer, e.g. ``In Image2, what ..?\\nASSISTANT:\\n``."""
    answer: str


@dataclass(frozen=True)
class Example:
    pictures: list[Image.Image]
    header: str
    questions: list[Question]


@dataclass(frozen=True)
class Batch:
    input_ids: torch.Tensor
    """(batch, length)"""
    position_ids: torch.Tensor
    """(batch, length); every question starts at the end of the header"""
    attention_mask: torch.Tensor
    """(batch, 1, length, length), float, added to the scores"""
    labels: torch.Tensor
    """(batch, length): the token to predict at each position, -100 where none is"""
    image_index: torch.Tensor
    """(batch, length): which image a visual token belongs to, -100 elsewhere"""
    pixel_values: torch.Tensor
    """(images, 3, SIZE, SIZE)"""


def to_pixels(pictures: list[Image.Image]) -> torch.Tensor:
    """As the processor does: squeezed to SIZE x SIZE and normalised."""
    size = (drawing.SIZE, drawing.SIZE)
    arrays = [np.asarray(p if p.size == size else p.resize(size, Image.Resampling.BICUBIC)) for p in pictures]
    return (torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


OTHER_WORDING = {
    "color": "Looking at the image, the color of the shapes is {}.",
    "shape": "Looking at the image, the shape drawn there is {}.",
    "count": "Looking at the image, the count of the shapes is {}.",
    "letter": "Looking at the image, the letter written there is {}.",
    "background": "Looking at the image, the color of the background is {}.",
}
"""Longer answers in words of the same vocabulary."""


def other_answer(scene: drawing.Scene, attribute: str) -> str:
    """The ground truth as the test-bed words it besides."""
    return OTHER_WORDING[attribute].format(scene[attribute])


def ask(scene: drawing.Scene, attribute: str, lead: str = "", answer: Answer = drawing.true_answer) -> Question:
    """The question as `mia_augment` words it, with its answer."""
    question = drawing.QUESTIONS[attribute]
    question = f"{lead}, {question[0].lower()}{question[1:]}" if lead else question
    return Question(f"{question}\nASSISTANT:\n", answer(scene, attribute))


def make_example(
    kind: str,
    count: int,
    rng: random.Random,
    split: drawing.Split,
    questions: int = QUESTIONS_PER_PROMPT,
    answer: Answer = drawing.true_answer,
) -> Example:
    """One prompt of a format (`single`, `sequence`, `grid`, `pic_in_pic`) over `count` pictures."""
    scenes = [rng.choice(drawing.scenes(split)) for _ in range(count)]
    pictures = [drawing.draw_scene(scene, rng)[0] for scene in scenes]
    asked = [(target, name) for target in range(count) for name in drawing.ATTRIBUTES]
    if kind == "pic_in_pic":
        asked = [(1, name) for name in drawing.ATTRIBUTES]
    asked = rng.sample(asked, min(questions, len(asked)))
    header = prompts.sequence_header(count) if kind == "sequence" else prompts.single_header()
    if kind == "grid":
        labels = [prompts.label(i) for i in range(count)]
        pictures = [compose.compose_grid(pictures, labels, style=GRID_STYLE).image]
    elif kind == "pic_in_pic":
        pictures = [compose.compose_pic_in_pic(pictures[0], pictures[1]).image]
    leads = {
        "single": lambda _: "",
        "pic_in_pic": lambda _: rng.choice(prompts.PIC_IN_PIC_LEADS),
    }
    lead = leads.get(kind, lambda target: f"In {prompts.label(target)}")
    return Example(pictures, header, [ask(scenes[target], name, lead(target), answer) for target, name in asked])


def collate(examples: list[Example], tokenizer: PreTrainedTokenizerFast, visual_tokens: int) -> Batch:
    """Lay out header and questions in one row each, and say who may attend to whom.

    `visual_tokens` is the number for each picture.
    """
    rows = [_row(example, tokenizer, visual_tokens) for example in examples]
    length = max(len(row["ids"]) for row in rows)
    shape = (len(rows), length)
    ids, position = torch.full(shape, tokenizer.pad_token_id), torch.zeros(shape, dtype=torch.long)
    segment, labels, image = (torch.full(shape, value) for value in (-1, -100, -100))
    for i, row in enumerate(rows):
        for tensor, name in ((ids, "ids"), (position, "position"), (segment, "segment"), (labels, "labels"), (image, "image")):
            tensor[i, : len(row[name])] = torch.tensor(row[name])
    return Batch(ids, position, _mask(segment), labels, image, to_pixels([p for e in examples for p in e.pictures]))


def _row(example: Example, tokenizer: PreTrainedTokenizerFast, visual_tokens: int) -> dict[str, list[int]]:
    visual = tokenizer.convert_tokens_to_ids("<image>")
    header = tokenizer(f"<s>USER:\n{example.header}", add_special_tokens=False).input_ids
    ids: list[int] = []
    image: list[int] = []
    seen = 0
    for token in header:
        repeat = visual_tokens if token == visual else 1
        ids += [token] * repeat
        image += [seen if token == visual else -100] * repeat
        seen += token == visual
    start = len(ids)
    row = {"ids": ids, "image": image, "position": list(range(start)), "segment": [0] * start, "labels": [-100] * start}
    for number, question in enumerate(example.questions, 1):
        text = tokenizer(question.text, add_special_tokens=False).input_ids
        answer = [*tokenizer(question.answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        both = text + answer
        row["ids"] += both
        row["position"] += range(start, start + len(both))
        row["segment"] += [number] * len(both)
        row["labels"] += [-100] * (len(text) - 1) + answer + [-100]
        row["image"] += [-100] * len(both)
    return row


def _mask(segment: torch.Tensor) -> torch.Tensor:
    """Header: causal. Question: the header and, causally, itself. Padding: only itself."""
    length = segment.shape[1]
    own = segment[:, :, None] == segment[:, None, :]
    header = (segment[:, None, :] == 0) & (segment[:, :, None] >= 0)
    allowed = (own | header) & torch.ones(length, length, dtype=torch.bool).tril() & (segment >= 0)[:, None, :]
    allowed = allowed | torch.eye(length, dtype=torch.bool)
    return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.bfloat16).min)[:, None]


def dense_labels(
    contents: list[tuple[str, tuple[int, int, int, int]]], transform: tuple[float, float, float, float], patch: int
) -> np.ndarray:
    """Per patch: 0 outside the picture, 1 its background, else 2 + the object there; (SIZE // patch, SIZE // patch).

    `transform` is (left, top, width, height) of the picture within the frame, in pixels.
    """
    left, top, width, height = transform
    centre = (np.arange(drawing.SIZE // patch) + 0.5) * patch
    x, y = (centre - left) / width * drawing.SIZE, (centre - top) / height * drawing.SIZE
    inside = ((y >= 0) & (y < drawing.SIZE))[:, None] & ((x >= 0) & (x < drawing.SIZE))[None]
    labels = inside.astype(np.int64)
    for name, box in contents:
        labels[((box[1] <= y) & (y < box[3]))[:, None] & ((box[0] <= x) & (x < box[2]))[None]] = 2 + OBJECTS.index(name)
    return labels


def placed(
    rng: random.Random, split: drawing.Split, patch: int, smallest: float = 0.36
) -> tuple[Image.Image, drawing.Scene, np.ndarray]:
    """A picture, often shrunk somewhere onto a plain frame, with its scene and dense labels."""
    scene = rng.choice(drawing.scenes(split))
    picture, contents = drawing.draw_scene(scene, rng)
    if rng.random() < 0.4:
        return picture, scene, dense_labels(contents, (0, 0, drawing.SIZE, drawing.SIZE), patch)
    width, height = (round(drawing.SIZE * rng.uniform(smallest, 1)) for _ in range(2))
    if rng.random() < 0.5:
        height = width
    left, top = rng.randint(0, drawing.SIZE - width), rng.randint(0, drawing.SIZE - height)
    frame = Image.new("RGB", (drawing.SIZE, drawing.SIZE), tuple(rng.randint(0, 255) for _ in range(3)))
    frame.paste(picture.resize((width, height), Image.Resampling.BICUBIC), (left, top))
    return frame, scene, dense_labels(contents, (left, top, width, height), patch)
