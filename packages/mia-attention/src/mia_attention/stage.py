"""The stage `mia score`: from a folder of samples to a folder of scored samples."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mia_augment import DataError, Sample, ScoredSample, check_unique
from mia_augment.contents import pictures_digest
from mia_augment.images import open_picture
from mia_augment.storage import (
    MANIFEST,
    Manifest,
    atomic_write,
    check_whole,
    content_hash,
    image_folders,
    only_writer,
    read_json,
    read_jsonl,
    read_manifest,
    relative_folders,
    resolve_image,
    what_is_missing,
    write_json,
    write_manifest,
)
from PIL import Image

from mia_attention.answering.batches import plan, run_batches, windows
from mia_attention.measure.layer_profile import find_layer
from mia_attention.readouts import readout_kind
from mia_attention.scoring.journal import Journal, Line, check_complete
from mia_attention.scoring.ranks import Ranks
from mia_attention.scoring.scorer import Scorer
from mia_attention.settings import ScoreSettings

logger = logging.getLogger(__name__)

STAGE = "score"
SAMPLES, SCORED, SKIPPED = "samples.jsonl", "scored.jsonl", "skipped.jsonl"
JOURNAL = ".journal"
LAYER = "layer.json"
"""What `layer: auto` chose, and every layer's AUROC."""

Progress = Callable[[int, int | None], None]


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
        ConfigError: another process is writing into `out`.
        DataError: no samples, fewer or more than their manifest counts, or none of them could be scored.
        ModelError: the model cannot be read, gives NaN, or does not fit into memory.
    """
    planned = _planned(folder_in, out, settings, model_id)
    if (done := _finished(out, planned)) is not None and not (out / JOURNAL).exists():
        return done
    check_whole(folder_in)
    ranks = Ranks.from_environment()
    with only_writer(out, part=ranks.rank):
        if (done := _finished(out, planned)) is not None:
            if ranks.rank == 0:
                shutil.rmtree(out / JOURNAL, ignore_errors=True)  # a run killed after its last step left it
            return done
        return _score(folder_in, model, processor, out, settings, planned, ranks, progress)


def _score(
    folder_in: Path,
    model: Any,
    processor: Any,
    out: Path,
    settings: ScoreSettings,
    planned: Manifest,
    ranks: Ranks,
    progress: Progress | None,
) -> Manifest:
    """The work itself; the folder is this process's."""
    started = time.monotonic()
    samples = list(read_jsonl(folder_in / SAMPLES, Sample))
    if not samples:
        raise DataError(f"{folder_in / SAMPLES}: expected at least one sample, found none")
    check_unique((sample.id for sample in samples), str(folder_in / SAMPLES))
    journal = Journal(out / JOURNAL, _work_key(planned), ranks.rank)
    batches = _plan(samples, settings.batch_size)
    folders = image_folders(folder_in)
    fixed = _with_layer(samples, model, processor, settings, folders, out / JOURNAL, planned)
    logger.info("attention is read %s", readout_kind(fixed.layer).when)
    scorer = Scorer(model, processor, fixed, lambda name: _open(name, folders))
    _score_missing(samples, batches, scorer, journal, ranks, progress)
    ranks.wait_until(lambda: journal.count() >= len(batches) or _finished(out, planned) is not None, f"all batches of {out}")
    if ranks.rank != 0:
        ranks.wait_until(lambda: _finished(out, planned) is not None, f"rank 0 to write {out}")
        return planned
    lines = journal.lines()
    check_complete(lines, len(samples), out / JOURNAL)
    (out / MANIFEST).unlink(missing_ok=True)  # it spoke of the files that are about to be replaced
    manifest = planned.model_copy(
        update={
            "counts": _write(out, samples, lines),
            "seconds": time.monotonic() - started,
            "notes": {"attention": readout_kind(fixed.layer).when},
        }
    )
    if readout_kind(settings.layer).from_samples:
        write_json(out / LAYER, read_json(out / JOURNAL / LAYER, f"delete {out / JOURNAL} and run the stage again"))
    else:
        (out / LAYER).unlink(missing_ok=True)
    pictures_digest(folder_in, SAMPLES, out, parts=settings.confusions, keep=True)
    write_manifest(out, manifest)  # last: from here on the folder counts as finished
    (out / JOURNAL / LAYER).unlink(missing_ok=True)
    journal.remove()
    return manifest


def _with_layer(
    samples: Sequence[Sample],
    model: Any,
    processor: Any,
    settings: ScoreSettings,
    folders: Sequence[Path],
    journal: Path,
    planned: Manifest,
) -> ScoreSettings:
    """The settings with `layer: auto` replaced by the layer chosen on the first samples; a resumed run keeps the choice."""
    if not readout_kind(settings.layer).from_samples:
        return settings
    note = journal / LAYER
    kept = _kept(note)
    if kept.get("work") != _work_key(planned) or not isinstance(kept.get("layer"), int):
        first = [sample for sample in samples if sample.parts > 1][: settings.auto_samples]
        choice = find_layer(first, model, processor, settings, open_image=lambda name: _open(name, folders))
        kept = {"work": _work_key(planned), **dataclasses.asdict(choice)}
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


def _score_missing(
    samples: Sequence[Sample],
    batches: Sequence[Sequence[int]],
    scorer: Scorer,
    journal: Journal,
    ranks: Ranks,
    progress: Progress | None,
) -> None:
    """Score this process's batches that no journal holds yet."""
    finished = journal.batches()
    mine = [number for number in range(len(batches)) if number not in finished and ranks.owns(number)]
    count = sum(len(batches[number]) for number in finished)
    index_of = {sample.id: index for index, sample in enumerate(samples)}
    groups = ([samples[index] for index in batches[number]] for number in mine)
    with journal.writing() as file:
        if progress:
            progress(count, len(samples))
        for number, results in zip(mine, run_batches(groups, scorer.prepare, scorer.run), strict=True):
            lines: list[Line] = [
                (index_of[result.id], SCORED if isinstance(result, ScoredSample) else SKIPPED, result.model_dump_json())
                for result in results
            ]
            journal.append(file, number, lines)
            count += len(results)
            if progress:
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
        settings=settings.model_dump(mode="json"),
        inputs={
            "samples": content_hash(path),
            "samples_made_from": hashlib.sha256(made_from.encode()).hexdigest(),
            "model": model_id,
            "pictures": pictures_digest(folder_in, SAMPLES, out, parts=settings.confusions),
        },
        image_folders=relative_folders(image_folders(folder_in), out),
    )


def _work_key(manifest: Manifest) -> str:
    return hashlib.sha256(manifest.model_dump_json(include={"stage", "version", "settings", "inputs"}).encode()).hexdigest()


def _finished(out: Path, planned: Manifest) -> Manifest | None:
    """The manifest of a folder that holds this very work, with all of its files."""
    done = read_manifest(out)
    if done is None or not done.same_work(planned):
        return None
    chosen = not readout_kind(planned.settings["layer"]).from_samples or (out / LAYER).is_file()
    return done if chosen and what_is_missing(out) is None else None


def _plan(samples: Sequence[Sample], batch_size: int) -> list[list[int]]:
    """Batches as indices into `samples`, numbered the same on every run and rank."""
    batches, start = [], 0
    for window in windows(samples, batch_size):
        batches.extend([[start + index for index in batch] for batch in plan(window, batch_size)])
        start += len(window)
    return batches


def _open(name: str, folders: Sequence[Path]) -> Image.Image:
    return open_picture(resolve_image(name, folders))
