"""Every readout's ratio of the same samples, with the model's answers: what `mia diagnose` compares."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from mia_augment import ModelError, Readout, Rows, Sample, ScoredSample, same_answer
from mia_augment.images import OpenImage
from mia_augment.storage import Progress
from numpy.typing import NDArray

from mia_attention.answering.part_answers import ask_parts
from mia_attention.heads.finding import head_shares
from mia_attention.heads.head_choice import held_out_ratios
from mia_attention.measure.layer_profile import layer_profile
from mia_attention.measure.prompt_states import last_prompt_states
from mia_attention.models.families import adapter_of
from mia_attention.readouts import BESIDE_LAYERS, READOUTS, readout_kind, readout_of
from mia_attention.scoring.scorer import score
from mia_attention.settings import ScoreSettings

logger = logging.getLogger(__name__)

ATTENTION_ALONE = {"confusions": False, "own_answer": False, "blocked_answer": False, "sinks": False}
"""Settings that ask for nothing but answers and attention."""

QUERY_ROWS: tuple[Rows, ...] = ("generated", "predicting", "question")


class ReadoutOfSamples(NamedTuple):
    """One readout, and its ratio of every sample (None: not measured)."""

    rows: Rows
    layer: Readout
    value_weighted: bool
    ratios: list[float | None]


@dataclass
class EveryReadout:
    """Samples that could be opened, what the model answered, and all its readouts."""

    samples: list[Sample]
    responses: dict[str, str] = field(default_factory=dict)
    """By sample id."""
    alone: list[str] = field(default_factory=list)
    """For each sample, the answer about the target's own picture alone; empty where that cannot be asked."""
    readouts: list[ReadoutOfSamples] = field(default_factory=list)
    sureness: list[float | None] = field(default_factory=list)
    """For each sample, 1 / perplexity of the answer."""
    states: NDArray[np.float32] | None = None
    """Hidden states at each prompt's last token, (samples, layers, width)."""
    configured: Readout | None = None
    """The layer that `score` reads; None: it is to be chosen among these."""


def every_readout(
    samples: Sequence[Sample],
    model: Any,
    processor: Any,
    settings: ScoreSettings,
    *,
    open_image: OpenImage,
    thorough: bool,
    progress: Progress,
) -> EveryReadout:
    """Ask the model every sample, together and about the target alone, and read its attention in every way.

    Samples that cannot be opened are left out. What `settings` names is always read, unless it is a choice among these.

    Args:
        thorough: value-weighted attention too: two thirds more time.
    """
    kinds = [(rows, weighted) for weighted in sorted({False, thorough, settings.value_weighted}) for rows in QUERY_ROWS]
    passes = sum(1 + len(_beside_layers(*kind, settings)) for kind in kinds)
    total, done = (passes + 2) * len(samples), 0  # and once for single heads, once about the target alone
    found = EveryReadout(list(samples))
    if not readout_kind(settings.layer).from_samples:
        found.configured = readout_of(model, settings)
    for rows, weighted in kinds:
        changed = settings.model_copy(update={"rows": rows, "value_weighted": weighted, **ATTENTION_ALONE})
        _read_layers(found, model, processor, changed, open_image)
        progress(done := done + len(found.samples), total)
        for other in _others(found, rows, weighted, settings):
            scored = _scored(found.samples, model, processor, changed.model_copy(update={"layer": other}), open_image)
            if scored is not None:
                found.readouts.append(ReadoutOfSamples(rows, other, weighted, [s.attention.ratio for s in scored]))
                found.sureness = [None if s.mean_logp is None else math.exp(s.mean_logp) for s in scored]
            progress(done := done + len(found.samples), total)
    _read_heads(found, model, processor, settings.model_copy(update=ATTENTION_ALONE), open_image)
    progress(done + len(found.samples), total)
    ask = functools.partial(ask_parts, batch_size=settings.batch_size, max_new_tokens=settings.max_new_tokens)
    said = ask(found.samples, model, processor, open_image=open_image, companions=False)
    about_target = [said[sample.id][sample.target] for sample in found.samples]
    found.alone = [response.text if response else "" for response in about_target]
    found.states = _states(found.samples, model, processor, settings, open_image)
    progress(total, total)
    return found


def _beside_layers(rows: Rows, weighted: bool, settings: ScoreSettings) -> list[Readout]:
    """What is read besides the layers; what rows or weights do not change is read once."""
    named = [(name, READOUTS[name]) for name in BESIDE_LAYERS]
    return [name for name, kind in named if (kind.weighable or not weighted) and (kind.rowed or rows == settings.rows)]


def _others(found: EveryReadout, rows: Rows, weighted: bool, settings: ScoreSettings) -> list[Readout]:
    """These, and the configured one where it is none of the layers: a mean of several, or one that sees part of the prompt."""
    others = _beside_layers(rows, weighted, settings)
    read = [*others, *(readout.layer for readout in found.readouts)]
    wanted = (rows, weighted) == (settings.rows, settings.value_weighted)
    return [*others, found.configured] if wanted and found.configured is not None and found.configured not in read else others


def _read_layers(found: EveryReadout, model: Any, processor: Any, settings: ScoreSettings, open_image: OpenImage) -> None:
    """Adds every layer's ratios; keeps the samples that could be opened, with their responses."""
    profile = layer_profile(found.samples, model, processor, settings, open_image=open_image)
    found.responses = {sample.id: response for sample, response, _ in profile}
    found.samples = [sample for sample in found.samples if sample.id in found.responses]
    for layer in profile[0][2] if profile else ():
        ratios = [attentions[layer].ratio for _, _, attentions in profile]
        found.readouts.append(ReadoutOfSamples(settings.rows, layer, settings.value_weighted, ratios))


def _read_heads(found: EveryReadout, model: Any, processor: Any, settings: ScoreSettings, open_image: OpenImage) -> None:
    """Adds the heads that tell most, every sample measured by heads that were chosen without it; nothing where none can be."""
    try:
        read = head_shares(found.samples, model, processor, settings, open_image=open_image)
    except ModelError as error:  # every head's rows need memory, and an adapter may not say how many heads there are
        logger.warning("readout heads is left out: %s", error)
        return
    chosen = held_out_ratios(read, [not same_answer(each.response, each.sample.answer) for each in read])
    if chosen is None:
        logger.warning("readout heads is left out: right and wrong answers do not meet in a quarter of the samples")
    elif [each.sample.id for each in read] == [sample.id for sample in found.samples]:
        heads, ratios = chosen
        found.readouts.append(ReadoutOfSamples(settings.rows, heads, settings.value_weighted, ratios))


def _scored(
    samples: Sequence[Sample], model: Any, processor: Any, settings: ScoreSettings, open_image: OpenImage
) -> list[ScoredSample] | None:
    """The samples, measured; None where the model cannot be read so."""
    try:
        return list(score(samples, model, processor, settings, open_image=open_image))
    except ModelError as error:  # quantized models and adapters give no gradient, some no rollout
        logger.warning("readout %s is left out: %s", settings.layer, error)
        return None


def _states(
    samples: Sequence[Sample], model: Any, processor: Any, settings: ScoreSettings, open_image: OpenImage
) -> NDArray[np.float32] | None:
    """States for a probe; None where the model gives none."""
    if not samples or adapter_of(model) is not None:
        return None
    try:
        return last_prompt_states(samples, model, processor, settings, open_image=open_image)
    except ModelError as error:  # no decoder in transformers' shape
        logger.warning("a probe of hidden states is left out: %s", error)
        return None
