"""The stage: a data set in, a folder of samples out; resumable, and the same bytes whatever the number of workers.

Finished chunks of samples lie in a scratch folder until all are done, so a killed run goes on where it was.
"""

from __future__ import annotations

from pathlib import Path

from mia_augment.errors import ConfigError
from mia_augment.indexing.build import Choice, Side
from mia_augment.making.planning import AUGMENT
from mia_augment.making.shard_work import shard_stage
from mia_augment.making.shards import SHARDS, Shard
from mia_augment.making.work import Crew, Work
from mia_augment.rows.pictures_in_rows import embedded_folders
from mia_augment.settings import AugmentSettings
from mia_augment.storage.files import Manifest, read_manifest
from mia_augment.storage.stages import Progress, Stage, run_stage, standing
from mia_augment.workers.engines import Engine
from mia_augment.workers.worker import Job


def augment_dataset(
    source: Path,
    image_root: Path,
    out: Path,
    settings: AugmentSettings | None = None,
    *,
    seed: int = 0,
    limit: int | None = None,
    workers: int | None = 1,
    holdout: float = 0.0,
    part: Side = "all",
    shard: str | None = None,
    engine: Engine = "processes",
    progress: Progress | None = None,
) -> Manifest:
    """Write multi-image samples of a data set: ``samples.jsonl``, ``images/``, ``skipped.jsonl``, ``manifest.json``.

    Killed at any moment and called again, it goes on, and the files become the same. A folder already made from the same
    source, pictures, settings and version is left as it is.

    Args:
        source: a file of rows, or a folder of such files (see `read_rows`).
        image_root: folder the pictures' paths are relative to.
        out: folder to write.
        settings: what to make; the paper's by default.
        seed: what is drawn depends on it and on each row's id.
        limit: take at most this many rows, from the beginning.
        workers: processes; the result does not depend on it. None: one, or with Ray one for each of the cluster's CPUs.
        holdout: share of the pictures that are held out, by a hash of their content.
        part: which side of that division is used, for samples and for companions.
        shard: make only this part of the samples, such as ``2/8``, into a folder of its own below `out`. Once all are made,
            the same call without it joins them: the folder is that of one call then.
        engine: who the workers are: processes here, or actors of a Ray cluster that see the same folders (extra ``ray``).
        progress: called with what is done and how much there is (None while rows are read).

    Returns:
        The manifest: its counts tell rows, samples, skipped, one per format and number ("sequence/3"), and one per kind of
        reason ("skipped/missing file").

    Raises:
        ConfigError: an argument is out of range, or `out` holds images of something else.
        DataError: source or image root is missing, or not one sample could be made.
    """
    stage = augment_stage(
        source,
        image_root,
        out,
        settings,
        seed=seed,
        limit=limit,
        workers=workers,
        holdout=holdout,
        part=part,
        shard=shard,
        engine=engine,
    )
    return run_stage(stage, progress).manifest


def augment_stage(
    source: Path,
    image_root: Path,
    out: Path,
    settings: AugmentSettings | None = None,
    *,
    seed: int = 0,
    limit: int | None = None,
    workers: int | None = 1,
    holdout: float = 0.0,
    part: Side = "all",
    shard: str | None = None,
    engine: Engine = "processes",
) -> Stage:
    """The stage that `augment_dataset` runs, its arguments as there.

    Raises:
        ConfigError: an argument is out of range.
    """
    if not 0 <= holdout < 1 or (workers is not None and workers < 1) or (limit is not None and limit < 1):
        raise ConfigError(f"expected 0 <= holdout < 1, workers >= 1, limit >= 1; got {holdout}, {workers}, {limit}")
    if part == "held_out" and holdout == 0:
        raise ConfigError("part held_out: expected a holdout above 0, got 0")
    job = Job(out=out, image_root=image_root, settings=settings or AugmentSettings(), seed=seed)
    work = Work(source, job, Choice(limit=limit, holdout=holdout, part=part), Crew(workers, engine))
    scratch = (job.scratch, out / SHARDS)
    whole = Stage(AUGMENT, out, plan=work.plan, make=work.make, clears=tuple(embedded_folders()), scratch=scratch)
    if shard is None:
        return whole
    parts = shard_stage(work, Shard.parse(shard))
    joined = read_manifest(out) is not None and standing(whole).finished is not None
    return whole if joined else parts
