"""Where the pictures and the text of a batch of prompts stand, and which rows and keys follow from a picture's number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from mia_augment import ConfigError
from torch import Tensor

from mia_attention.causes.reweighting import Reweighting
from mia_attention.models.inputs import Encoded

BlindRows = Literal["answer", "question", "other images"]
"""Rows from which a picture can be hidden: those that predict the answer's tokens; the prompt's text before them, whatever it
says; the visual tokens of the other pictures."""

EVERYWHERE: tuple[BlindRows, ...] = get_args(BlindRows)
"""All rows but the picture's own: for the answer it is as if the picture were not there."""


@dataclass(frozen=True)
class PromptPlaces:
    """Places of a batch's pictures (parts of composed pictures count as pictures) in the padded sequence.

    Attributes:
        images: per prompt (its pictures, length) bool.
        ends: (batch,) where each prompt ends.
    """

    images: list[Tensor]
    ends: Tensor

    def unpadded(self, lengths: Tensor) -> PromptPlaces:
        """The same where each prompt begins at position 0 and is padded on the right; `lengths`: of the prompts, (batch,)."""
        counts = [int(length) for length in lengths.tolist()]
        moved = [
            torch.nn.functional.pad(part[:, part.shape[1] - count :], (0, part.shape[1] - count))
            for part, count in zip(self.images, counts, strict=True)
        ]
        return replace(self, images=moved, ends=lengths)

    def check(self, images: Sequence[int], ids: Sequence[str] | None = None) -> None:
        """Raise ConfigError where a prompt has no picture of such a number, or nothing of it can be seen."""
        for row, part in enumerate(self.images):
            name = f"prompt {row}" if ids is None else f"sample {ids[row]}"
            for image in images:
                if not 0 <= image < len(part):
                    raise ConfigError(
                        f"{name}: expected images from 0 to {len(part) - 1}, got {image}; see docs/errors.md#no-such-image"
                    )
                if not part[image].any():
                    raise ConfigError(
                        f"{name}: no visual token stands for image {image} alone, so it cannot be hidden; "
                        "see docs/errors.md#no-such-image"
                    )


def places_of(encoded: Encoded) -> PromptPlaces:
    """Places of whole pictures in left-padded prompts."""
    length = encoded.prompt_length
    marked = []
    for row in encoded.image_tokens:
        part = torch.zeros(len(row), length, dtype=torch.bool)
        for index, positions in enumerate(row):
            part[index, positions.cpu()] = True
        marked.append(part)
    return PromptPlaces(marked, torch.full((len(marked),), length))


def hidden_images(
    places: PromptPlaces, images: Sequence[int], rows: BlindRows | Sequence[BlindRows] = EVERYWHERE
) -> list[Reweighting]:
    """What hides pictures from some rows, one change per picture; nothing in a prompt that has no such picture.

    Raises:
        ConfigError: there are no such rows.
    """
    return [weighted_image(places, image, 0.0, rows) for image in images]


def weighted_image(places: PromptPlaces, image: int, weight: float, rows: BlindRows | Sequence[BlindRows]) -> Reweighting:
    """What multiplies the attention of some rows on one picture.

    Raises:
        ConfigError: there are no such rows.
    """
    names: Sequence[BlindRows] = [rows] if isinstance(rows, str) else rows
    unknown = [name for name in names if name not in EVERYWHERE]
    if unknown or not names:
        raise ConfigError(f"rows: expected some of {', '.join(EVERYWHERE)}, got {', '.join(unknown) or 'none'}")
    keys = torch.stack([_row(part, image) for part in places.images])
    return Reweighting(_rows(places, image, names), keys, weight, later="answer" in names)


def hidden_from_each_other(places: PromptPlaces) -> list[Reweighting]:
    """What hides every picture's tokens from all others' (CAPL, arXiv 2603.07048: images mutually invisible); text sees all."""
    count = max(len(part) for part in places.images)
    changes = []
    for image in range(count):
        mine = torch.stack([_row(part, image) for part in places.images])
        every = torch.stack([part.any(0) for part in places.images])
        changes.append(Reweighting(mine, every & ~mine))
    return changes


def delimiters(encoded: Encoded) -> Tensor:
    """(batch, length) bool: the tokens right before and right after each picture's, where they are text."""
    places = places_of(encoded)
    real = encoded.inputs["attention_mask"].bool().cpu()
    images = torch.stack([part.any(0) for part in places.images])
    before = torch.nn.functional.pad(images[:, 1:], (0, 1))
    after = torch.nn.functional.pad(images[:, :-1], (1, 0))
    beside: Tensor = (before | after) & ~images & real
    return beside


def _row(part: Tensor, image: int) -> Tensor:
    """A picture's positions, (length,); none where the prompt has no such picture."""
    marked: Tensor = part[image] if image < len(part) else torch.zeros_like(part[0])
    return marked


def _rows(places: PromptPlaces, image: int, names: Sequence[BlindRows]) -> Tensor:
    positions = torch.arange(places.images[0].shape[1])
    out = []
    for part, end in zip(places.images, places.ends.tolist(), strict=True):
        visual, answer = part.any(0), positions >= end - 1
        kinds: dict[BlindRows, Tensor] = {
            "answer": answer,
            "question": ~visual & ~answer,
            "other images": visual & ~_row(part, image),
        }
        out.append(torch.stack([kinds[name] for name in names]).any(0))
    return torch.stack(out)
