"""The stage that maps the attention of chosen samples, while the model is loaded anyway."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mia_augment import FORMATS, ModelError, ScoredSample, Skipped
from mia_augment.contents import pictures_digest
from mia_augment.images import picture_opener
from mia_augment.statistics import shares
from mia_augment.storage import (
    MANIFEST,
    Manifest,
    Progress,
    Stage,
    content_hash,
    image_folders,
    relative_folders,
    write_jsonl,
)

from mia_attention.measure.attention_maps import MAPS, AttentionMap, relative_maps
from mia_attention.readouts import readout_kind
from mia_attention.settings import ScoreSettings

logger = logging.getLogger(__name__)

SCORED = "scored.jsonl"


def maps_stage(
    folder_in: Path,
    out: Path,
    settings: ScoreSettings,
    model_id: str,
    load: Callable[[], tuple[Any, Any]],
    choose: Callable[[], Sequence[ScoredSample]],
    choice: Callable[[], str],
    knockouts: bool = False,
    alone: bool = False,
) -> Stage:
    """Attention maps of some scored samples: `maps.jsonl`, one `AttentionMap` each.

    Args:
        folder_in: the folder of `score`.
        settings: with which it was scored.
        model_id: as for `score_stage`.
        load: gives (model, processor).
        choose: gives the samples to map.
        choice: tells this choice from another, together with the scored samples' file, which it need not read.
        knockouts: also measure what each response loses without each picture: a pass over prompt and response for each.
        alone: also measure the readout `alone`: a pass over each picture with the bare question and the response.
    """

    def plan() -> Manifest:
        return Manifest(
            stage="attention",
            version=importlib.metadata.version("mia-attention"),
            settings=settings.model_dump(mode="json"),
            inputs={
                "scored": content_hash(folder_in / SCORED),
                "chosen": hashlib.sha256((choice() + " knockouts" * knockouts + " alone" * alone).encode()).hexdigest(),
                "pictures": pictures_digest(folder_in, SCORED, out),
                "model": model_id,
            },
            image_folders=relative_folders(image_folders(folder_in), to=out),
        )

    def make(planned: Manifest, progress: Progress) -> Manifest:
        chosen = choose()
        (out / MANIFEST).unlink(missing_ok=True)
        count = write_jsonl(out / MAPS, _maps(chosen, folder_in, load, settings, progress, _Besides(knockouts, alone)))
        pictures_digest(folder_in, SCORED, out, keep=True)
        return planned.model_copy(update={"counts": {"maps": count, "without": len(chosen) - count}})

    return Stage("attention", out, plan, make)


@dataclass(frozen=True)
class _Besides:
    """What is measured beside the maps."""

    knockouts: bool
    alone: bool


def _maps(
    chosen: Sequence[ScoredSample],
    folder_in: Path,
    load: Callable[[], tuple[Any, Any]],
    settings: ScoreSettings,
    progress: Progress,
    besides: _Besides,
) -> Iterator[AttentionMap]:
    from mia_attention.measure.maps import Look, look_at_all
    from mia_attention.models.box_coverage import BoxCoverage

    if not chosen:
        return
    model, processor = load()
    if not BoxCoverage(model, processor).known:
        return
    readout = chosen[0].attention.layer
    layer = "middle" if readout_kind(readout).measure is not None else readout  # it looks at no positions: nothing to map
    as_scored = settings.model_copy(update={"layer": layer, "confusions": False, "own_answer": False, "blocked_answer": False})
    losses = _losses(chosen, folder_in, model, processor, as_scored) if besides.knockouts else {}
    alone = _alone(chosen, folder_in, model, processor, settings.batch_size) if besides.alone else {}
    found = look_at_all(chosen, model, processor, as_scored, open_image=picture_opener(folder_in))
    for done, result in enumerate(found, 1):
        if isinstance(result, Look):
            name = result.scored.id
            yield AttentionMap(id=name, maps=relative_maps(result.maps), losses=losses.get(name), alone=alone.get(name))
        progress(done, len(chosen))


def _losses(
    chosen: Sequence[ScoredSample], folder_in: Path, model: Any, processor: Any, settings: ScoreSettings
) -> dict[str, list[float | None]]:
    """By sample id, what its response loses without each region; nothing where the model's attention cannot be changed."""
    from mia_attention.causes.knocking_out import try_knockouts

    asked = [sample for sample in chosen if sample.response_ids and sample.parts > 1]
    said = [sample.response_ids or [] for sample in asked]
    try:
        found = list(try_knockouts(asked, said, model, processor, settings, open_image=picture_opener(folder_in)))
    except ModelError as error:
        logger.warning("what answers lose without a picture is left out: %s", error)
        return {}
    return {
        sample.id: [knockout.loss.get(part) for part in range(sample.parts)]
        for sample, knockout in zip(asked, found, strict=True)
        if not isinstance(knockout, Skipped)
    }


def _alone(
    chosen: Sequence[ScoredSample], folder_in: Path, model: Any, processor: Any, batch_size: int
) -> dict[str, list[float]]:
    """By sample id, each region's share of the response's likelihood under each picture alone; known ones are taken."""
    from mia_attention.answering.under_each_picture import under_each_picture

    found = {sample.id: sample.attention.logp_alone for sample in chosen if sample.attention.logp_alone is not None}
    asked = [
        sample
        for sample in chosen
        if sample.id not in found and sample.response_ids and sample.parts > 1 and FORMATS[sample.format].asks_of_one
    ]
    said = [sample.response_ids or [] for sample in asked]
    try:
        logps = under_each_picture(asked, said, model, processor, open_image=picture_opener(folder_in), batch_size=batch_size)
    except ModelError as error:
        logger.warning("how likely answers are under each picture alone is left out: %s", error)
        logps = []
    found |= {sample.id: logp for sample, logp in zip(asked, logps, strict=bool(logps))}
    return {name: of_each for name, logp in found.items() if (of_each := shares(logp.summed)) is not None}
