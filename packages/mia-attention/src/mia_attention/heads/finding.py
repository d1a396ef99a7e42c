"""Run a model over samples and find the heads that tell most."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

from mia_augment import ConfigError, Readout, Sample, Skipped, same_answer
from mia_augment.images import OpenImage
from mia_augment.statistics import shares
from mia_augment.storage import Progress

from mia_attention.answering.batches import run_in_order
from mia_attention.answering.under_each_picture import under_each_picture
from mia_attention.capture.layer_rows import capture_bytes
from mia_attention.heads.head_choice import HeadChoice, HeadGoal, choose_heads
from mia_attention.heads.head_shares import Head, HeadShares
from mia_attention.models.decoder import decoder_layers, full_layers, head_count
from mia_attention.scoring.scorer import Prepared, Scorer
from mia_attention.settings import ScoreSettings

logger = logging.getLogger(__name__)

Truth = Literal["answers", "alone"]
"""How wrong answers are known: by the samples' ground truths; or without any, where the answer is likelier under another
picture alone than under the one asked about (the readout `alone`)."""


def find_heads(
    samples: Sequence[Sample],
    model: Any,
    processor: Any,
    settings: ScoreSettings | None = None,
    *,
    open_image: OpenImage,
    goal: HeadGoal = "wrong",
    labels: Truth | Sequence[bool] = "answers",
    most: int = 8,
    layers: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> HeadChoice:
    """The heads whose share on the target best tells wrong answers, or that find the picture asked about. ::

        found = find_heads(samples, model, processor, open_image=open_image)
        ScoreSettings(layer="heads", heads=found.heads)

    Args:
        samples: of several pictures; those that cannot be opened are left out.
        settings: rows, view and batch size, as for `mia_attention.score`.
        goal: see `HeadGoal`.
        labels: for the goal `wrong`, how it is known which answers are wrong: see `Truth`; or for each sample, whether it is.
        most: how many heads at most.
        layers: whose heads; None: all layers that see the whole prompt.

    Raises:
        ConfigError: there is no such goal or label, or not a label for each sample.
        DataError: right and wrong answers do not meet in one of the halves (see `choose_heads`).
        ModelError: a layer does not exist, or the model cannot be read.
    """
    settings = settings or ScoreSettings()
    if not isinstance(labels, str) and len(labels) != len(samples):
        raise ConfigError(f"labels: expected one for each of {len(samples)} samples, got {len(labels)}")
    if isinstance(labels, str) and labels not in ("answers", "alone"):
        raise ConfigError(f"labels: expected answers, alone or a list, got {labels!r}")
    found = head_shares(samples, model, processor, settings, open_image=open_image, layers=layers, progress=progress)
    wrong: list[bool | None]
    if goal == "target":
        wrong = [None] * len(found)
    elif labels == "answers":
        wrong = [not same_answer(each.response, each.sample.answer) if each.sample.answer else None for each in found]
    elif labels == "alone":
        wrong = _of_another(found, model, processor, open_image, settings.batch_size)
    else:
        given = dict(zip((sample.id for sample in samples), labels, strict=True))
        wrong = [bool(given[each.sample.id]) for each in found]
    return choose_heads(found, wrong, goal, most=most, seed=settings.seed)


def head_shares(
    samples: Sequence[Sample],
    model: Any,
    processor: Any,
    settings: ScoreSettings,
    *,
    open_image: OpenImage,
    layers: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[HeadShares]:
    """Each sample that can be opened with the model's response and every head's attention, from one run.

    Arguments as for `find_heads`. The log says beforehand how much memory the rows of a batch will take.
    """
    available = decoder_layers(model)
    chosen = list(layers) if layers is not None else full_layers(available) or list(available)
    answer, prompt = settings.max_new_tokens, 1024
    held = capture_bytes(model, chosen, rows=answer, keys=prompt, batch=settings.batch_size, heads=True)
    heads: list[Head] = [(layer, head) for layer in chosen for head in range(head_count(available[layer]))]
    logger.info(
        "%d heads of %d layers: up to %.1f GB for each 1,024 tokens of prompt, with answers of %d tokens in batches of %d",
        len(heads),
        len(chosen),
        held / 1e9,
        answer,
        settings.batch_size,
    )
    readouts: list[Readout] = [[head] for head in heads]
    scorer = Scorer(model, processor, settings, open_image, readouts=readouts)

    def run(prepared: Prepared) -> list[HeadShares | Skipped]:
        read = zip(prepared.samples, scorer.read(prepared), strict=True)
        return prepared.usable.in_order(
            [HeadShares(each, said.text, said.tokens, dict(zip(heads, rows, strict=True))) for each, (said, rows) in read]
        )

    found: list[HeadShares] = []
    results = run_in_order(samples, settings.batch_size, scorer.prepare, run, lambda sample: sample)
    for done, result in enumerate(results, 1):
        if isinstance(result, HeadShares):
            found.append(result)
        if progress is not None:
            progress(done, len(samples))
    return found


def _of_another(
    found: Sequence[HeadShares], model: Any, processor: Any, open_image: OpenImage, batch_size: int
) -> list[bool | None]:
    """Whether each answer is likelier under another picture alone than under the target; None: it cannot be measured."""
    logps = under_each_picture(
        [each.sample for each in found],
        [each.tokens for each in found],
        model,
        processor,
        open_image=open_image,
        batch_size=batch_size,
    )
    wrong: list[bool | None] = []
    for each, logp in zip(found, logps, strict=True):
        parts = shares(logp.summed)
        wrong.append(None if parts is None else max(parts) > parts[each.sample.target])
    return wrong
