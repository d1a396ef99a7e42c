"""The stage that maps the attention of chosen samples, while the model is loaded anyway."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mia_augment import ScoredSample
from mia_augment.contents import pictures_digest
from mia_augment.images import picture_opener
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

SCORED = "scored.jsonl"


def maps_stage(
    folder_in: Path,
    out: Path,
    settings: ScoreSettings,
    model_id: str,
    load: Callable[[], tuple[Any, Any]],
    choose: Callable[[], Sequence[ScoredSample]],
    choice: Callable[[], str],
) -> Stage:
    """Attention maps of some scored samples: `maps.jsonl`, one `AttentionMap` each.

    Args:
        folder_in: the folder of `score`.
        settings: with which it was scored.
        model_id: as for `score_stage`.
        load: gives (model, processor).
        choose: gives the samples to map.
        choice: tells this choice from another, together with the scored samples' file, which it need not read.
    """

    def plan() -> Manifest:
        return Manifest(
            stage="attention",
            version=importlib.metadata.version("mia-attention"),
            settings=settings.model_dump(mode="json"),
            inputs={
                "scored": content_hash(folder_in / SCORED),
                "chosen": hashlib.sha256(choice().encode()).hexdigest(),
                "pictures": pictures_digest(folder_in, SCORED, out),
                "model": model_id,
            },
            image_folders=relative_folders(image_folders(folder_in), to=out),
        )

    def make(planned: Manifest, progress: Progress) -> Manifest:
        chosen = choose()
        (out / MANIFEST).unlink(missing_ok=True)
        count = write_jsonl(out / MAPS, _maps(chosen, folder_in, load, settings, progress))
        pictures_digest(folder_in, SCORED, out, keep=True)
        return planned.model_copy(update={"counts": {"maps": count, "without": len(chosen) - count}})

    return Stage("attention", out, plan, make)


def _maps(
    chosen: Sequence[ScoredSample],
    folder_in: Path,
    load: Callable[[], tuple[Any, Any]],
    settings: ScoreSettings,
    progress: Progress,
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
    as_scored = settings.model_copy(update={"layer": layer, "confusions": False, "own_answer": False})
    found = look_at_all(chosen, model, processor, as_scored, open_image=picture_opener(folder_in))
    for done, result in enumerate(found, 1):
        if isinstance(result, Look):
            yield AttentionMap(id=result.scored.id, maps=relative_maps(result.maps))
        progress(done, len(chosen))
