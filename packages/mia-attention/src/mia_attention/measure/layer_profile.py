"""Every layer's ratio of some samples, from one run of the model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mia_augment import FORMATS, Attention, DataError, Readout, Sample, Skipped, same_answer
from mia_augment.images import OpenImage
from mia_augment.storage import read_json, write_json

from mia_attention.answering.batches import run_in_order
from mia_attention.measure.layer_choice import LayerChoice, choose_layer
from mia_attention.models.decoder import decoder_layers, full_layers
from mia_attention.scoring.scorer import Prepared, Scorer
from mia_attention.settings import ScoreSettings

logger = logging.getLogger(__name__)


def layer_profile(
    samples: Sequence[Sample],
    model: Any,
    processor: Any,
    settings: ScoreSettings,
    *,
    open_image: OpenImage,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[tuple[Sample, str, dict[int, Attention]]]:
    """Each readable sample with the model's response and its attention by layer, for all layers that see the whole prompt.

    Samples whose pictures cannot be opened are left out. `settings.layer` is not looked at.
    """
    available = decoder_layers(model)
    layers = full_layers(available) or list(available)
    readouts: list[Readout] = list(layers)
    scorer = Scorer(model, processor, settings, open_image, readouts=readouts)

    def run(prepared: Prepared) -> list[tuple[Sample, str, dict[int, Attention]] | Skipped]:
        return prepared.usable.in_order(
            [
                (sample, response.text, dict(zip(layers, attentions, strict=True)))
                for sample, (response, attentions) in zip(prepared.samples, scorer.read(prepared), strict=True)
            ]
        )

    found: list[tuple[Sample, str, dict[int, Attention]]] = []
    results = run_in_order(samples, settings.batch_size, scorer.prepare, run, lambda sample: sample)
    for done, result in enumerate(results, 1):
        if not isinstance(result, Skipped):
            found.append(result)
        if progress:
            progress(done, len(samples))
    return found


def find_layer(
    samples: Sequence[Sample],
    model: Any,
    processor: Any,
    settings: ScoreSettings,
    *,
    open_image: OpenImage,
    progress: Callable[[int, int | None], None] | None = None,
) -> LayerChoice:
    """The layer whose ratio best predicts which of these samples are answered wrongly (`settings.layer` = ``auto``).

    Raises:
        DataError: right and wrong answers never meet within a format and number of images.
    """
    plain = settings.model_copy(update={"sinks": False})
    profile = layer_profile(samples, model, processor, plain, open_image=open_image, progress=progress)
    wrong = [not same_answer(response, sample.answer) for sample, response, _ in profile]
    groups = [f"{sample.format}/{sample.parts}" for sample, _, _ in profile]
    layers = profile[0][2] if profile else {}
    ratios = {layer: [attentions[layer].ratio for _, _, attentions in profile] for layer in layers}
    return choose_layer(ratios, wrong, groups, seed=settings.seed)


def with_layer(
    samples: Sequence[Sample],
    model: Any,
    processor: Any,
    settings: ScoreSettings,
    *,
    open_image: OpenImage,
    note: Path,
    work: str,
) -> ScoreSettings:
    """The settings with `layer: auto` replaced by the layer chosen on the first samples; a resumed run keeps the choice.

    Args:
        note: file that keeps the choice, with every layer's AUROC.
        work: what the choice is for; one that was made for something else is made again.

    Raises:
        DataError: as `find_layer`.
    """
    kept = _kept(note)
    if kept.get("work") != work or not isinstance(kept.get("layer"), int):
        asked = [sample for sample in samples if sample.parts > 1 and FORMATS[sample.format].asks_of_one]
        first = asked[: settings.auto_samples]
        choice = find_layer(first, model, processor, settings, open_image=open_image)
        kept = {"work": work, **asdict(choice)}
        write_json(note, kept)
    logger.info("layer %d predicts wrong answers best on the first %d samples", kept["layer"], settings.auto_samples)
    return settings.model_copy(update={"layer": kept["layer"]})


def _kept(note: Path) -> dict[str, Any]:
    """What was noted of the layer; nothing where it is not to be read."""
    try:
        kept = read_json(note) if note.is_file() else {}
    except DataError as error:
        logger.warning("%s; the layer is chosen again", error)
        return {}
    return kept if isinstance(kept, dict) else {}
