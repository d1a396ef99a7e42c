"""Making all samples of a data set in one call."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mia_augment.compose.samples import Task
from mia_augment.contents.states import STATES, contents_digest, keep_states, untouched
from mia_augment.errors import ConfigError, DataError
from mia_augment.formats import Bucket
from mia_augment.images.sniff import PictureFolder
from mia_augment.indexing.build import Choice, build_index
from mia_augment.indexing.index import Index
from mia_augment.making.clearing import make_ready
from mia_augment.making.merging import all_chunks, check_made, merge
from mia_augment.making.planning import PICTURES, planned_manifest, with_pictures
from mia_augment.read.dataset import read_rows
from mia_augment.rows.pictures_in_rows import EmbeddedPictures
from mia_augment.storage.complete import what_is_missing
from mia_augment.storage.files import Manifest, read_manifest
from mia_augment.storage.lock import held_descriptor, held_parts, only_writer
from mia_augment.storage.reading import naming
from mia_augment.storage.stages import Progress
from mia_augment.workers.engines import Engine, started
from mia_augment.workers.pool import Chunk, Workers
from mia_augment.workers.waves import check_served, chunks, waves
from mia_augment.workers.worker import Job, chunk_size


class Crew(NamedTuple):
    """Who composes the pictures."""

    workers: int | None = 1
    """None: one, or with Ray one for each of the cluster's CPUs."""
    engine: Engine = "processes"


class Work:
    """One call: what is to be made of which rows and pictures."""

    def __init__(self, source: Path, job: Job, choice: Choice, crew: Crew) -> None:
        self.source, self.job, self.choice, self.crew = source, job, choice, crew
        self._changed: str | None = None
        """What the pictures hold, once they were found to have changed: the plan is asked again under the lock."""

    @property
    def index(self) -> Path:
        return self.job.scratch / "index"

    def plan(self) -> Manifest:
        """The manifest without counts. What the pictures hold is known if none was touched; otherwise all rows are read."""
        pictures = self._pictures()
        planned, found = self.plan_of_rows(), read_manifest(self.job.out)
        if found is None:
            return planned
        unread = with_pictures(planned, found.inputs.get(PICTURES, ""))
        if not found.same_work(unread) or what_is_missing(self.job.out) or untouched(self.job.out / STATES, pictures):
            return unread
        return with_pictures(planned, self._contents())

    def plan_of_rows(self) -> Manifest:
        """The manifest without counts and without what the pictures hold."""
        return planned_manifest(self.source, self.job, self.choice)

    def make(self, planned: Manifest, progress: Progress) -> Manifest:
        """Write all files but the manifest."""
        job = self.job
        if busy := held_parts(job.out):
            numbers = ", ".join(map(str, busy))
            raise ConfigError(f"{job.out}: shards are being made there (number {numbers}); join them when they have ended")
        make_ready(job.out, self.plan_of_rows(), read_manifest(job.out))
        with started(self.crew.engine, job, self.crew.workers, held_descriptor(job.out)) as pool:
            self.read(progress)
            counts = _make(job, pool, progress)
        check_made(job, counts, self.source)
        merge(job, all_chunks(job), job.out, refused=True)
        keep_states(self.index, job.out)
        return with_pictures(planned, contents_digest(self.index)).model_copy(update={"counts": ordered(counts)})

    def read(self, progress: Progress) -> None:
        """Read all rows into the index, unless they were read before.

        Raises:
            DataError: they cannot serve a format.
        """
        if self.index.is_dir():
            return
        self._index_into(self.index, progress)
        if self.choice.part == "held_out":  # of few held-out pictures, what can be made is made
            return
        try:
            with contextlib.closing(Index(self.index)) as index:
                check_served(index, self.job.settings)
        except DataError as error:
            shutil.rmtree(self.job.scratch, ignore_errors=True)
            raise DataError(f"{self.source}: {error}") from error

    def _contents(self) -> str:
        """What the pictures hold now. Where that is the same as before, the times of their files are noted anew."""
        if self._changed is not None:
            return self._changed
        index, out = self.job.scratch / "again", self.job.out
        with contextlib.nullcontext() if held_descriptor(out) is not None else only_writer(out):
            self._index_into(index)
            digest = contents_digest(index)
            found = read_manifest(out)
            if found is not None and found.inputs.get(PICTURES) == digest:
                keep_states(index, out)
            else:
                self._changed = digest
        return digest

    def _index_into(self, folder: Path, progress: Progress | None = None) -> None:
        settings, store = self.job.settings, EmbeddedPictures(self.job.out).store
        rows = read_rows(self.source, store, unlabelled=settings.unlabelled, questions=settings.asked_of_pictures)
        with naming(folder):
            build_index(rows, self._pictures(), self.job.settings, folder, self.choice, progress)

    def _pictures(self) -> PictureFolder:
        if self.job.image_root == self.job.out:  # rows that bring their pictures along
            self.job.out.mkdir(parents=True, exist_ok=True)
        return PictureFolder(self.job.image_root, self.job.settings.pictures, self.job.out)


def _make(job: Job, pool: Workers, progress: Progress) -> Counter[str]:
    """Run all waves; chunks that are there already are only counted."""
    counts = Counter(rows=0, samples=0, skipped=0)
    made = Counter[Bucket]()
    with contextlib.closing(Index(job.scratch / "index")) as index:
        counts.update(counted_while_reading(index))
        for number, (total, tasks) in enumerate(waves(index, job.settings, job.seed, made)):
            done = 0
            for result in pool.run(named_chunks(chunks(tasks, chunk_size(job.settings, total)), number)):
                counts.update(result)
                made.update({bucket: result[f"{bucket[0]}/{bucket[1]}"] for bucket in job.settings.shares()})
                done += result["samples"] + result["skipped"]
                progress(done, total)
    return counts


def counted_while_reading(index: Index) -> dict[str, int]:
    """What was counted while the rows were read; the rows skipped then once more, since other skipped ones are samples."""
    skipped = index.counts.get("skipped")
    return {**index.counts, **({"rows_skipped": skipped} if skipped else {})}


def ordered(counts: Counter[str]) -> dict[str, int]:
    """rows, samples, skipped, then the rest by name."""
    first = ("rows", "samples", "skipped")
    return {name: counts[name] for name in [*first, *sorted(set(counts) - set(first))]}


def named_chunks(chunked: Iterator[list[Task]], wave: int, start: int = 0) -> Iterator[Chunk]:
    """Chunks, numbered from `start`, with names that sort in their order."""
    return ((f"{wave:03d}-{i:08d}", chunk) for i, chunk in enumerate(chunked, start))
