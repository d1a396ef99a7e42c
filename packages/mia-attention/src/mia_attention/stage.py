"""The stage `mia score`: from a folder of samples to a folder of scored samples. Importing and planning it needs no torch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mia_augment import DataError, Sample, ScoredSample, check_unique
from mia_augment.contents import pictures_digest
from mia_augment.images import picture_opener
from mia_augment.storage import (
    MANIFEST,
    Journal,
    Manifest,
    Progress,
    Stage,
    atomic_write,
    check_whole,
    content_hash,
    image_folders,
    read_json,
    read_jsonl,
    read_manifest,
    relative_folders,
    run_stage,
    standing,
    with_plan,
    write_json,
)

from mia_attention.readouts import readout_kind, readout_of
from mia_attention.scoring.lines import Line, lines_by_sample
from mia_attention.scoring.ranks import Ranks
from mia_attention.scoring.unasked import NOT_ASKED, unasked
from mia_attention.settings import ScoreSettings

if TYPE_CHECKING:
    from mia_attention.given import GivenAnswers
    from mia_attention.scoring.scorer import Scorer

logger = logging.getLogger(__name__)

STAGE = "score"
SAMPLES, SCORED, SKIPPED = "samples.jsonl", "scored.jsonl", "skipped.jsonl"
JOURNAL = ".journal"
GIVEN = "after answering: the answers come from elsewhere, and this model is made to say them"
LAYER = "layer.json"
"""What `layer: auto` chose, and every layer's AUROC."""


def score_samples(
    folder_in: Path,
    model: Any,
    processor: Any,
    out: Path,
    settings: ScoreSettings,
    *,
    model_id: str,
    progress: Progress | None = None,
) -> Manifest:
    """Score a folder's `samples.jsonl`; writes `scored.jsonl`, `skipped.jsonl` and `manifest.json` into `out`.

    What is finished already is not done again: a folder made from the same samples, model and settings is left as it is, and
    a run that was killed goes on after its last finished batch and gives the same files. Under a launcher that sets RANK and
    WORLD_SIZE the batches are shared by the processes and rank 0 writes the result.

    Args:
        folder_in: with `samples.jsonl` and, for where its pictures lie, `manifest.json`.
        model, processor: a transformers vision-language model on its device.
        out: the stage's folder.
        settings: see `ScoreSettings`.
        model_id: name, path or content hash of the model: a changed one makes the stage run again.
        progress: called with the number of finished samples and their total.

    Returns:
        The manifest; its counts are samples, scored, skipped, without_ratio, and one per format and number of parts
        (`sequence/3`), its note `attention` says how attention was read and why so.

    Raises:
        ConfigError: another process is writing into `out`, or it holds another stage.
        DataError: no samples, fewer or more than their manifest counts, or none of them could be scored.
        ModelError: the model cannot be read, gives NaN, or does not fit into memory.
    """
    stage = score_stage(folder_in, out, settings, model_id, lambda: (model, processor))
    return run_stage(stage, progress, rank=Ranks.from_environment().rank).manifest


def score_stage(
    folder_in: Path, out: Path, settings: ScoreSettings, model_id: str, load: Callable[[], tuple[Any, Any]]
) -> Stage:
    """The stage that `score_samples` runs, its arguments as there.

    Args:
        load: gives (model, processor); called only where something is to be scored.
    """

    def make(planned: Manifest, progress: Progress) -> Manifest:
        work = _Work(folder_in, out, settings, planned, lambda: standing(with_plan(stage, planned)).finished)
        return _make(work, load, progress)

    stage = Stage(
        name=STAGE,
        folder=out,
        plan=lambda: _planned(folder_in, out, settings, model_id),
        make=make,
        results=(out / LAYER,) if readout_kind(settings.layer).from_samples else (),
        scratch=(out / JOURNAL,),
        together=True,
    )
    return stage


class _Work(NamedTuple):
    """What one call of the stage has to do."""

    folder_in: Path
    out: Path
    settings: ScoreSettings
    planned: Manifest
    finished: Callable[[], Manifest | None]
    """The manifest, as soon as rank 0 has written it."""


def _make(work: _Work, load: Callable[[], tuple[Any, Any]], progress: Progress) -> Manifest:
    """Score this process's batches; rank 0 waits for the others' and writes the files, the others wait for its manifest."""
    folder_in, out, settings, planned, finished = work
    check_whole(folder_in)
    samples = list(read_jsonl(folder_in / SAMPLES, Sample))
    if not samples:
        raise DataError(f"{folder_in / SAMPLES}: expected at least one sample, found none")
    check_unique((sample.id for sample in samples), str(folder_in / SAMPLES))
    if not settings.ask:
        return _make_unasked(work, samples, progress)
    from mia_attention.answering.batches import numbered_batches
    from mia_attention.given import check_same_model, opened
    from mia_attention.measure.layer_profile import with_layer
    from mia_attention.scoring.scorer import Scorer

    ranks = Ranks.from_environment()
    journal = Journal[list[Line]](out / JOURNAL, planned.work_key, list[Line], ranks.rank)
    batches = numbered_batches(samples, settings.batch_size)
    open_image = picture_opener(folder_in)
    model, processor = load()
    fixed = settings
    if readout_kind(settings.layer).from_samples:
        note = out / JOURNAL / LAYER
        fixed = with_layer(samples, model, processor, settings, open_image=open_image, note=note, work=planned.work_key)
    when = readout_kind(readout_of(model, fixed)).when if settings.answers is None else GIVEN
    logger.info("attention is read %s", when)
    if journal.count() < len(batches):
        with opened(fixed, processor, open_image, {sample.id for sample in samples}) as given:
            if given is not None and given.asks and fixed.answers is not None and fixed.answers.same_model:
                check_same_model(given, model, processor, samples, fixed, open_image)
            scorer = Scorer(model, processor, fixed, open_image, given=given)
            _score_missing(samples, batches, scorer, journal, ranks, progress, given)
    ranks.wait_until(lambda: journal.count() >= len(batches) or finished() is not None, f"all batches of {out}")
    if ranks.rank != 0:
        ranks.wait_until(lambda: finished() is not None, f"rank 0 to write {out}")
        return finished() or planned
    lines = lines_by_sample(journal.results(), len(samples), out / JOURNAL)
    (out / MANIFEST).unlink(missing_ok=True)  # it spoke of the files that are about to be replaced
    counts = _write(out, samples, lines)
    _write_layer(out, settings)
    pictures_digest(folder_in, SAMPLES, out, parts=settings.looks_at_parts, keep=True)
    return planned.model_copy(update={"counts": counts, "notes": {"attention": when}})


def _make_unasked(work: _Work, samples: Sequence[Sample], progress: Progress) -> Manifest:
    """Write all samples without an answer; of several processes rank 0 does."""
    folder_in, out, settings, planned, finished = work
    ranks = Ranks.from_environment()
    if ranks.rank != 0:
        ranks.wait_until(lambda: finished() is not None, f"rank 0 to write {out}")
        return finished() or planned
    open_image, lines = picture_opener(folder_in), {}
    for index, sample in enumerate(samples):
        result = unasked(sample, settings, open_image)
        lines[index] = (index, SCORED if isinstance(result, ScoredSample) else SKIPPED, result.model_dump_json())
        progress(index + 1, len(samples))
    (out / MANIFEST).unlink(missing_ok=True)
    counts = _write(out, samples, lines)
    pictures_digest(folder_in, SAMPLES, out, keep=True)
    return planned.model_copy(update={"counts": counts, "notes": {"attention": NOT_ASKED}})


def _score_missing(
    samples: Sequence[Sample],
    batches: Sequence[Sequence[int]],
    scorer: Scorer,
    journal: Journal[list[Line]],
    ranks: Ranks,
    progress: Progress,
    given: GivenAnswers | None,
) -> None:
    """Score this process's batches that no journal holds yet."""
    from mia_attention.answering.batches import run_batches
    from mia_attention.given import asked_ahead

    finished = journal.batches()
    mine = [number for number in range(len(batches)) if number not in finished and ranks.owns(number)]
    count = sum(len(batches[number]) for number in finished)
    index_of = {sample.id: index for index, sample in enumerate(samples)}
    groups = ([samples[index] for index in batches[number]] for number in mine)
    with journal.writing() as note:
        progress(count, len(samples))
        for number, results in zip(mine, run_batches(asked_ahead(groups, given), scorer.prepare, scorer.run), strict=True):
            lines: list[Line] = [
                (index_of[result.id], SCORED if isinstance(result, ScoredSample) else SKIPPED, result.model_dump_json())
                for result in results
            ]
            note(number, lines)
            count += len(results)
            progress(count, len(samples))


def _write(out: Path, samples: Sequence[Sample], lines: dict[int, Line]) -> dict[str, int]:
    """Write both files in input order; returns the counts."""
    counts: Counter[str] = Counter(samples=len(samples), scored=0, skipped=0, without_ratio=0)
    with atomic_write(out / SCORED) as scored, atomic_write(out / SKIPPED) as skipped:
        for index, sample in enumerate(samples):
            _, kind, text = lines[index]
            (scored if kind == SCORED else skipped).write(text + "\n")
            if kind == SCORED:
                counts.update(["scored", f"{sample.format}/{sample.parts}"])
                counts["without_ratio"] += json.loads(text)["attention"]["ratio"] is None
            else:
                counts["skipped"] += 1
    if counts["scored"] == 0:
        first = json.loads(lines[0][2])
        raise DataError(f"none of {len(samples)} samples could be scored; the first, {first['id']}: {first['reason']}")
    return dict(counts)


def _write_layer(out: Path, settings: ScoreSettings) -> None:
    """Write which layer was chosen beside the results; nothing where none was to be chosen."""
    if readout_kind(settings.layer).from_samples:
        write_json(out / LAYER, read_json(out / JOURNAL / LAYER, f"delete {out / JOURNAL} and run the stage again"))
    else:
        (out / LAYER).unlink(missing_ok=True)


def _planned(folder_in: Path, out: Path, settings: ScoreSettings, model_id: str) -> Manifest:
    """The manifest of the work to do, without counts."""
    path = folder_in / SAMPLES
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected the samples that `mia augment` writes")
    source = read_manifest(folder_in)
    made_from = source.model_dump_json(include={"stage", "version", "settings", "inputs"}) if source else ""
    return Manifest(
        stage=STAGE,
        version=importlib.metadata.version("mia-attention"),
        settings={**settings.model_dump(mode="json"), "answers": settings.answers and settings.answers.identity()},
        inputs={
            "samples": content_hash(path),
            "samples_made_from": hashlib.sha256(made_from.encode()).hexdigest(),
            "model": model_id,
            "pictures": pictures_digest(folder_in, SAMPLES, out, parts=settings.looks_at_parts),
        },
        image_folders=relative_folders(image_folders(folder_in), out),
    )
