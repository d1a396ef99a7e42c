"""The stage that maps the attention of chosen samples, while the model is loaded anyway."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_augment import FORMATS, ModelError, ScoredSample, Skipped
from mia_augment.contents import pictures_digest
from mia_augment.images import picture_opener
from mia_augment.statistics import shares
from mia_augment.storage import (
    MANIFEST,
    Journal,
    Manifest,
    Progress,
    Stage,
    content_hash,
    image_folders,
    relative_folders,
    standing,
    with_plan,
    write_jsonl,
)

from mia_attention.measure.attention_maps import MAPS, AttentionMap, relative_maps
from mia_attention.readouts import readout_kind
from mia_attention.scoring.ranks import Ranks
from mia_attention.settings import ScoreSettings
from mia_attention.stage import JOURNAL, SCORED

if TYPE_CHECKING:
    from mia_attention.scoring.scorer import Scorer

logger = logging.getLogger(__name__)


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
        ranks = Ranks.from_environment()
        chosen = choose()
        found = _shared_out(chosen, planned, ranks, _Work(folder_in, out, settings, load, knockouts, alone), progress)
        if ranks.rank != 0:
            ranks.wait_until(lambda: standing(with_plan(stage, planned)).finished is not None, f"rank 0 to write {out}")
            return planned
        (out / MANIFEST).unlink(missing_ok=True)
        count = write_jsonl(out / MAPS, (found[sample.id] for sample in chosen if sample.id in found))
        pictures_digest(folder_in, SCORED, out, keep=True)
        return planned.model_copy(update={"counts": {"maps": count, "without": len(chosen) - count}})

    stage = Stage("attention", out, plan, make, scratch=(out / JOURNAL,), together=True)
    return stage


@dataclass(frozen=True)
class _Work:
    """What is mapped how."""

    folder_in: Path
    out: Path
    settings: ScoreSettings
    load: Callable[[], tuple[Any, Any]]
    knockouts: bool
    alone: bool


def _shared_out(
    chosen: Sequence[ScoredSample], planned: Manifest, ranks: Ranks, work: _Work, progress: Progress
) -> dict[str, AttentionMap]:
    """By sample id the maps that all processes made; rank 0 waits for them, the others give none."""
    from mia_attention.answering.batches import numbered_batches

    batches = numbered_batches(chosen, work.settings.batch_size)
    journal = Journal[list[AttentionMap]](work.out / JOURNAL, planned.work_key, list[AttentionMap], ranks.rank)
    known = journal.batches()
    mine = [number for number in range(len(batches)) if number not in known and ranks.owns(number)]
    done = sum(len(batches[number]) for number in known)
    if mine:
        from mia_attention.scoring.scorer import Scorer

        model, processor = work.load()
        settings = _as_scored(chosen, work.settings)
        scorer = Scorer(model, processor, settings, picture_opener(work.folder_in))
        with journal.writing() as note:
            for number in mine:
                batch = [chosen[index] for index in batches[number]] if scorer.coverage.known else []
                note(number, _maps(batch, model, processor, settings, scorer, work) if batch else [])
                done += len(batches[number])
                progress(done, len(chosen))
    if ranks.rank != 0:  # rank 0 removes the journals as soon as it has read them
        return {}
    ranks.wait_until(lambda: journal.count() >= len(batches), f"all maps of {work.out}")
    return {found.id: found for results in journal.results().values() for found in results}


def _as_scored(chosen: Sequence[ScoredSample], settings: ScoreSettings) -> ScoreSettings:
    """The settings that give the same answers again, read where something is to be mapped."""
    readout = chosen[0].attention.layer
    layer = "middle" if readout_kind(readout).measure is not None else readout  # it looks at no positions: nothing to map
    return settings.model_copy(update={"layer": layer, "confusions": False, "own_answer": False, "blocked_answer": False})


def _maps(
    chosen: Sequence[ScoredSample], model: Any, processor: Any, settings: ScoreSettings, scorer: Scorer, work: _Work
) -> list[AttentionMap]:
    """The maps of one batch; none for a sample of which there is none."""
    from mia_attention.measure.maps import Look, look_at_all

    open_image = picture_opener(work.folder_in)
    losses = _losses(chosen, work.folder_in, model, processor, settings) if work.knockouts else {}
    alone = _alone(chosen, work.folder_in, model, processor, settings.batch_size) if work.alone else {}
    found = look_at_all(chosen, model, processor, settings, open_image=open_image, scorer=scorer)
    looks = [(look.scored.id, look) for look in found if isinstance(look, Look)]
    return [
        AttentionMap(id=name, maps=relative_maps(look.maps), losses=losses.get(name), alone=alone.get(name))
        for name, look in looks
    ]


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
