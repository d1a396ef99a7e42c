"""Making one shard of a data set's samples.

All shards of one folder share one index of the rows, which the first of them writes while the others wait, so companions come
from all rows; and they share its folder of chunks, so a call without a shard finds what they made and puts it together.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mia_augment.contents.states import contents_digest
from mia_augment.errors import ConfigError
from mia_augment.indexing.index import Index
from mia_augment.making.clearing import make_ready
from mia_augment.making.merging import merge
from mia_augment.making.planning import AUGMENT, PICTURES, with_pictures
from mia_augment.making.shards import Shard
from mia_augment.making.work import Work, counted_while_reading, named_chunks, ordered
from mia_augment.rows.pictures_in_rows import embedded_folders
from mia_augment.storage.files import Manifest, read_manifest, relative_folders
from mia_augment.storage.lock import only_writer
from mia_augment.storage.stages import Progress, Stage
from mia_augment.workers.engines import started
from mia_augment.workers.waves import chunks, waves
from mia_augment.workers.worker import chunk_size


@dataclass(frozen=True)
class _Part:
    """What of all tasks is a shard's."""

    size: int
    """Tasks in a chunk."""
    chunks: range
    """Numbers of its chunks."""
    tasks: range
    """Places of its tasks among all."""
    rows: int
    """Rows that are counted with it: those whose first sample it makes, and with the first shard all that give none."""


def shard_stage(work: Work, shard: Shard) -> Stage:
    """The stage of one shard, in a folder of its own below that of all samples; `mia score` reads either.

    Raises:
        ConfigError: the settings ask for a number of samples, of which no shard knows how many others make.
    """
    if work.job.settings.per_bucket is not None:
        raise ConfigError(
            "a shard follows the shares of the formats and cannot make an exact number of samples: leave out "
            "`augment.per_bucket` (`--per-bucket`), or the shard"
        )
    folder = shard.folder(work.job.out)

    def plan() -> Manifest:
        rows, found = work.plan_of_rows(), read_manifest(folder)
        planned = rows.model_copy(
            update={
                "settings": {**rows.settings, "shard": str(shard)},
                "image_folders": relative_folders([work.job.out, work.job.image_root], to=folder),
            }
        )
        return with_pictures(planned, found.inputs.get(PICTURES, "")) if found else planned

    def make(planned: Manifest, progress: Progress) -> Manifest:
        return _make(work, shard, folder, planned, progress)

    return Stage(AUGMENT, folder, plan, make)


def _part(index: Index, shard: Shard, size: int, total: int, copies: int) -> _Part:
    """Chunks are never divided, so the shard has the chunks of the whole under their names there."""
    mine = shard.share(-(-total // size))
    first, end = min(mine.start * size, total), min(mine.stop * size, total)
    rows = -(-end // copies) - -(-first // copies)
    without_tasks = index.counts.get("rows", 0) - len(index.rows)
    return _Part(size, mine, range(first, end), rows + (without_tasks if shard.number == 1 else 0))


def _make(work: Work, shard: Shard, folder: Path, planned: Manifest, progress: Progress) -> Manifest:
    """Write the shard's files but its manifest."""
    job, crew = work.job, work.crew
    with contextlib.ExitStack() as held:
        with only_writer(job.out, also=embedded_folders(), wait=True):
            finished, rows = read_manifest(job.out), work.plan_of_rows()
            if finished is not None and finished.same_work(with_pictures(rows, finished.inputs.get(PICTURES, ""))):
                raise ConfigError(f"{job.out}: all shards were joined meanwhile; the whole is there, nothing is to be made")
            make_ready(job.out, rows, finished)
            work.read(progress)
            lock = held.enter_context(only_writer(job.out, part=shard.number))  # from here on nobody joins or clears
        index = held.enter_context(contextlib.closing(Index(work.index)))
        [(total, tasks)] = waves(index, job.settings, job.seed, {})
        part = _part(index, shard, chunk_size(job.settings, total), total, job.settings.samples_per_row)
        mine = named_chunks(chunks(islice(tasks, part.tasks.start, part.tasks.stop), part.size), 0, part.chunks.start)
        counts, done = Counter({"rows": part.rows, "samples": 0, "skipped": 0}), 0
        if shard.number == 1:
            counts.update({name: count for name, count in counted_while_reading(index).items() if name != "rows"})
        with started(crew.engine, job, crew.workers, lock) as pool:
            for result in pool.run(mine):
                counts.update(result)
                done += result["samples"] + result["skipped"]
                progress(done, len(part.tasks))
        files = [job.scratch / "chunks" / f"000-{number:08d}.jsonl" for number in part.chunks]
        merge(job, files, folder, refused=shard.number == 1)
    return with_pictures(planned, contents_digest(work.index)).model_copy(update={"counts": ordered(counts)})
