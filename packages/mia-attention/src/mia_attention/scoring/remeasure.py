"""The stage that measures answers once more, by another readout. Importing and planning it needs no torch.

An ablation compares readouts on the same answers, which are not asked for again.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mia_augment import ScoredSample, Skipped
from mia_augment.contents import pictures_digest
from mia_augment.images import picture_opener
from mia_augment.storage import (
    Journal,
    Manifest,
    Progress,
    Stage,
    check_whole,
    content_hash,
    image_folders,
    read_jsonl,
    read_manifest,
    relative_folders,
    write_jsonl,
)

from mia_attention.settings import ScoreSettings
from mia_attention.stage import JOURNAL, SCORED, SKIPPED, STAGE


def remeasure_stage(
    folder_in: Path, out: Path, settings: ScoreSettings, model_id: str, load: Callable[[], tuple[Any, Any]]
) -> Stage:
    """Scored samples in, the same samples and answers out, with `attention` as `settings` reads it; all else is copied.

    Args:
        folder_in: with `scored.jsonl` and its manifest.
        settings: of these the readout, the rows, the view and the batch size count.
        load: gives (model, processor); called only where something is to be measured.
    """
    return Stage(
        name=STAGE,
        folder=out,
        plan=lambda: _planned(folder_in, out, settings, model_id),
        make=lambda planned, progress: _make(folder_in, out, settings, planned, load, progress),
        results=(out / SCORED, out / SKIPPED),
        scratch=(out / JOURNAL,),
    )


def _planned(folder_in: Path, out: Path, settings: ScoreSettings, model_id: str) -> Manifest:
    check_whole(folder_in)
    return Manifest(
        stage=STAGE,
        version=importlib.metadata.version("mia-attention"),
        settings=settings.model_dump(mode="json"),
        inputs={
            SCORED: content_hash(folder_in / SCORED),
            "model": model_id,
            "pictures": pictures_digest(folder_in, SCORED, out, parts=settings.looks_at_parts),
        },
        image_folders=relative_folders(image_folders(folder_in), out),
    )


def _make(
    folder_in: Path,
    out: Path,
    settings: ScoreSettings,
    planned: Manifest,
    load: Callable[[], tuple[Any, Any]],
    progress: Progress,
) -> Manifest:
    """Measure batch by batch; what a killed call finished stays."""
    samples = list(read_jsonl(folder_in / SCORED, ScoredSample))
    size = settings.batch_size
    batches = [samples[start : start + size] for start in range(0, len(samples), size)]
    journal = Journal[list[ScoredSample]](out / JOURNAL, planned.model_dump_json(), list[ScoredSample])
    finished = journal.batches()
    missing = [number for number in range(len(batches)) if number not in finished]
    measured = remeasured([batches[number] for number in missing], *load(), folder_in, settings) if missing else iter(())
    with journal.writing() as note:
        for done, (number, batch) in enumerate(zip(missing, measured, strict=True), len(finished) + 1):
            note(number, batch)
            progress(min(done * size, len(samples)), len(samples))
    found = journal.results()
    again = [sample for number in range(len(batches)) for sample in found[number]]
    write_jsonl(out / SCORED, again)
    write_jsonl(out / SKIPPED, read_jsonl(folder_in / SKIPPED, Skipped))
    pictures_digest(folder_in, SCORED, out, parts=settings.looks_at_parts, keep=True)
    before = read_manifest(folder_in)
    without = {"without_ratio": sum(sample.attention.ratio is None for sample in again)}
    return planned.model_copy(update={"counts": {**(before.counts if before else {}), **without}})


def remeasured(
    batches: Sequence[Sequence[ScoredSample]], model: Any, processor: Any, folder: Path, settings: ScoreSettings
) -> Iterator[list[ScoredSample]]:
    """The samples of each batch, measured by the settings' readout; their pictures lie where the folder says."""
    from mia_attention.scoring.teacher_forced import attend

    opener = picture_opener(folder)
    for batch in batches:
        found = attend(batch, map(_said, batch), model, processor, settings, open_image=opener)
        yield [s.model_copy(update={"attention": attention}) for s, attention in zip(batch, found, strict=True)]


def _said(sample: ScoredSample) -> str | list[int]:
    """The answer as the model emitted it, or else its text."""
    return sample.response_ids if sample.response_ids is not None else sample.response.strip() or []
