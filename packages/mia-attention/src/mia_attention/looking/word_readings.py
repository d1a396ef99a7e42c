"""Where each token of one answer looked: attention, and gradient x attention, on every picture and on every part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mia_augment import DataError, ModelError, barred_tokens
from mia_augment.prompting import end_tokens
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mia_attention.answering.likelihood import said_ids
from mia_attention.answering.part_answers import PartPrompt
from mia_attention.answering.prompt_cache import append_answers
from mia_attention.answering.responses import answer
from mia_attention.capture.gradients import gradient_each_row, next_tokens
from mia_attention.capture.layer_rows import capture_attention
from mia_attention.measure.attention_maps import cell_masses
from mia_attention.measure.maps import coverages
from mia_attention.measure.ratio import sequence_ratio
from mia_attention.models.box_coverage import BoxCoverage
from mia_attention.models.families import adapter_of
from mia_attention.models.inputs import Encoded


@dataclass(frozen=True)
class WordReading:
    """Where each token of an answer looked.

    Attributes:
        reads: what was read, in words: ``attention of layer 16`` or ``gradient x attention of all layers``.
        masses: (tokens, pictures): on each picture's visual tokens, at the position that predicts each token. Attention: parts
            of the row's whole attention. Gradient x attention: its own unit, which compares between tokens and pictures.
        visual_tokens: of each picture.
        maps: per picture (tokens, rows, columns), the same on the cells of a raster; None: this model's visual tokens cannot be
            mapped to pixels.
    """

    reads: str
    masses: NDArray[np.float64]
    visual_tokens: list[int]
    maps: list[NDArray[np.float64]] | None

    @property
    def share(self) -> list[float] | None:
        """Each picture's share over the whole answer, per visual token as in `mia_attention.score`; None: nothing looked at."""
        return self._shares(self.masses.sum(0))

    @property
    def shares(self) -> list[list[float] | None]:
        """The same for each token of the answer."""
        return [self._shares(row) for row in self.masses]

    def _shares(self, masses: NDArray[np.float64]) -> list[float] | None:
        found = [sequence_ratio(masses.tolist(), self.visual_tokens, index) for index in range(len(masses))]
        return None if None in found else [float(share) for share in found if share is not None]


@dataclass(frozen=True)
class WordsSaid:
    """An answer, and the attention of the positions that predict its tokens.

    Attributes:
        ids: emitted or given, what ends the turn included.
        logps: log-prob of each, in nats.
        attention: (tokens, prompt length) of the layers that were asked for.
    """

    ids: list[int]
    logps: list[float]
    attention: Tensor


def answered(model: Any, processor: Any, encoded: Encoded, layers: Sequence[int], max_new_tokens: int) -> WordsSaid:
    """Answer one prompt greedily, attention read meanwhile."""
    with capture_attention(model, layers, rows="predicting") as captured:
        found = answer(model, processor, encoded, ["look"], max_new_tokens)
    count = int(found.lengths[0])
    rows = captured.attention()[0, :count, : encoded.prompt_length]
    return WordsSaid(found.tokens[0, :count].tolist(), found.logps[0, :count].tolist(), rows.cpu())


def given(model: Any, processor: Any, encoded: Encoded, layers: Sequence[int], prompt: str, text: str) -> WordsSaid:
    """The same for an answer that is given, in one pass over prompt and answer.

    Raises:
        DataError: the answer is empty, or holds what ends a turn or stands for a picture.
        ModelError: the model takes no input ids.
    """
    ids = said_ids(PartPrompt("answer", [], prompt), text, model, processor, end=True)
    if adapter_of(model) is None and set(barred_tokens(model)) & set(ids):
        raise DataError("answer: it holds the token that stands for pictures; expected text only")
    if "input_ids" not in encoded.inputs:
        raise ModelError(
            "a given answer can be looked at only in models that take input ids; leave it out to have one generated"
        )
    whole, _ = append_answers(encoded.inputs, [ids])
    first = encoded.prompt_length - 1
    with torch.inference_mode(), capture_attention(model, layers, rows=(first, first + len(ids))) as captured:
        logits = model(**whole, use_cache=False, logits_to_keep=len(ids) + 1).logits[0, -len(ids) - 1 : -1]
    logps = logits.float().log_softmax(-1).gather(1, torch.tensor(ids, device=logits.device)[:, None])[:, 0]
    return WordsSaid(ids, logps.tolist(), captured.attention()[0, :, : encoded.prompt_length].cpu())


def gradient_of_words(model: Any, encoded: Encoded, ids: Sequence[int]) -> Tensor:
    """Gradient x attention of the positions that predict each token, (tokens, prompt length), in a pass forward and back.

    Raises:
        ModelError: the model cannot be read so; or a number is none (NaN).
    """
    if "input_ids" not in encoded.inputs:
        raise ModelError("gradient: expected a model that takes input ids")
    whole, lengths = append_answers(encoded.inputs, [ids])
    first = encoded.prompt_length - 1
    targets = next_tokens(lengths.tolist(), [ids], whole["input_ids"].shape[1]).to(whole["input_ids"].device)
    rows = gradient_each_row(model, whole, targets, range(first, first + len(ids)))[0, :, : encoded.prompt_length].cpu()
    if not bool(torch.isfinite(rows).all()):
        raise ModelError("gradient: expected finite numbers, got NaN or infinite ones; load the model in bfloat16 or float32")
    return rows


def on_pictures(
    reads: str, rows: Tensor, places: Sequence[Tensor], pictures: Sequence[Image.Image], coverage: BoxCoverage, cells: int
) -> WordReading:
    """Rows over the prompt's positions as masses and maps of its pictures.

    Args:
        rows: (tokens, prompt length).
        places: positions of each picture's visual tokens.
        cells: along each picture's longer side.
    """
    each = [rows[:, positions.cpu()].double().numpy() for positions in places]
    maps = None
    if coverage.known:
        several = len(pictures) > 1
        maps = [
            cell_masses(masses, picture.size, coverages(coverage, masses.shape[1], several), cells)
            for masses, picture in zip(each, pictures, strict=True)
        ]
    return WordReading(reads, np.stack([masses.sum(1) for masses in each], axis=1), [m.shape[1] for m in each], maps)


def ends_turn(model: Any, processor: Any, token: int) -> bool:
    """Whether a token ends an answer, so that a person has nothing to read there."""
    return token in end_tokens(model, processor)
