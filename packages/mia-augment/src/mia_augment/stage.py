"""The stage: a data set in, a folder of samples out; resumable, and the same bytes whatever the number of workers.

Finished chunks of samples lie in a scratch folder until all are done, so a killed run goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from mia_augment.compose.samples import Task
from mia_augment.contents.states import STATES, contents_digest, keep_states, untouched
from mia_augment.errors import ConfigError, DataError
from mia_augment.formats import FORMATS, Bucket
from mia_augment.images.sniff import PictureFolder
from mia_augment.indexing.build import Choice, Side, build_index, reason_kind
from mia_augment.indexing.index import Index
from mia_augment.read.dataset import data_files, holds_pictures_only, read_rows
from mia_augment.records import Skipped
from mia_augment.rows.bare_pictures import picture_names
from mia_augment.rows.pictures_in_rows import EMBEDDED, EmbeddedPictures, embedded_folders
from mia_augment.settings import AugmentSettings
from mia_augment.storage.complete import what_is_missing
from mia_augment.storage.files import (
    Manifest,
    atomic_write,
    content_hash,
    read_manifest,
    relative_folders,
    write_json,
)
from mia_augment.storage.lock import held_descriptor, only_writer
from mia_augment.storage.reading import naming
from mia_augment.storage.stages import Progress, Stage, run_stage
from mia_augment.workers.pool import Chunk, InProcess, WorkerPool, Workers
from mia_augment.workers.waves import check_served, chunks, waves
from mia_augment.workers.worker import IMAGES, SAMPLES, SCRATCH, SKIPPED, Job, chunk_size

_STAGE = "augment"
PICTURES = "pictures"
"""The manifest's input that stands for what the pictures hold."""

log = logging.getLogger(__name__)


def augment_dataset(
    source: Path,
    image_root: Path,
    out: Path,
    settings: AugmentSettings | None = None,
    *,
    seed: int = 0,
    limit: int | None = None,
    workers: int = 1,
    holdout: float = 0.0,
    part: Side = "all",
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
        workers: processes; the result does not depend on it.
        holdout: share of the pictures that are held out, by a hash of their content.
        part: which side of that division is used, for samples and for companions.
        progress: called with what is done and how much there is (None while rows are read).

    Returns:
        The manifest: its counts tell rows, samples, skipped, one per format and number ("sequence/3"), and one per kind of
        reason ("skipped/missing file").

    Raises:
        ConfigError: an argument is out of range, or `out` holds images of something else.
        DataError: source or image root is missing, or not one sample could be made.
    """
    stage = augment_stage(
        source, image_root, out, settings, seed=seed, limit=limit, workers=workers, holdout=holdout, part=part
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
    workers: int = 1,
    holdout: float = 0.0,
    part: Side = "all",
) -> Stage:
    """The stage that `augment_dataset` runs, its arguments as there.

    Raises:
        ConfigError: an argument is out of range.
    """
    if not 0 <= holdout < 1 or workers < 1 or (limit is not None and limit < 1):
        raise ConfigError(f"expected 0 <= holdout < 1, workers >= 1, limit >= 1; got {holdout}, {workers}, {limit}")
    if part == "held_out" and holdout == 0:
        raise ConfigError("part held_out: expected a holdout above 0, got 0")
    job = Job(out=out, image_root=image_root, settings=settings or AugmentSettings(), seed=seed)
    work = _Work(source, job, Choice(limit=limit, holdout=holdout, part=part), workers)
    return Stage(_STAGE, out, plan=work.plan, make=work.make, clears=tuple(embedded_folders()), scratch=(job.scratch,))


class _Work:
    """One call of the stage: what is to be made of which rows and pictures."""

    def __init__(self, source: Path, job: Job, choice: Choice, workers: int) -> None:
        self.source, self.job, self.choice, self.workers = source, job, choice, workers
        self._changed: str | None = None
        """What the pictures hold, once they were found to have changed: the plan is asked again under the lock."""

    def plan(self) -> Manifest:
        """The manifest without counts. What the pictures hold is known if none was touched; otherwise all rows are read."""
        pictures = self._pictures()
        planned, found = _manifest(self.source, self.job, self.choice), read_manifest(self.job.out)
        if found is None:
            return planned
        unread = _with_pictures(planned, found.inputs.get(PICTURES, ""))
        if not found.same_work(unread) or what_is_missing(self.job.out) or untouched(self.job.out / STATES, pictures):
            return unread
        return _with_pictures(planned, self._contents())

    def make(self, planned: Manifest, progress: Progress) -> Manifest:
        """Write all files but the manifest."""
        job, index = self.job, self.job.scratch / "index"
        _prepare(job.out, _manifest(self.source, job, self.choice), read_manifest(job.out))
        lock = held_descriptor(job.out)
        with WorkerPool(job, self.workers, lock) if self.workers > 1 else InProcess(job) as pool:
            if not index.is_dir():
                self._index_into(index, progress)
                self._check(index)
            counts = _make(job, pool, progress)
        _merge(job, counts, self.source)
        keep_states(index, job.out)
        return _with_pictures(planned, contents_digest(index)).model_copy(update={"counts": _ordered(counts)})

    def _check(self, folder: Path) -> None:
        """Refuse formats that the rows cannot serve; of few held-out pictures, what can be made is made."""
        if self.choice.part == "held_out":
            return
        try:
            with contextlib.closing(Index(folder)) as index:
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
        return PictureFolder(self.job.image_root, self.job.settings.pictures, self.job.out)


def _with_pictures(manifest: Manifest, digest: str) -> Manifest:
    return manifest.model_copy(update={"inputs": {**manifest.inputs, PICTURES: digest}})


def _manifest(source: Path, job: Job, choice: Choice) -> Manifest:
    """The manifest before pictures are looked at and anything is counted."""
    digest = hashlib.sha256()
    if job.settings.asked_of_pictures and holds_pictures_only(source):  # what they hold is looked at beside the rows
        _check_same_folder(source, job.image_root)
        digest.update("\0".join(picture_names(source)).encode())
    else:
        for path in data_files(source):
            digest.update(path.name.encode() + b"\0" + content_hash(path).encode())
    folders = relative_folders([job.image_root], to=job.out)
    return Manifest(
        stage=_STAGE,
        version=importlib.metadata.version("mia-augment"),
        settings={
            **job.settings.model_dump(mode="json"),
            "seed": job.seed,
            "limit": choice.limit,
            "holdout": choice.holdout,
            "part": choice.part,
        },
        inputs={"source": digest.hexdigest(), "image_root": folders[0]},
        image_folders=folders,
    )


def _check_same_folder(source: Path, image_root: Path) -> None:
    """Raise ConfigError where pictures without rows are looked for in one folder and opened from another."""
    if source.resolve() != image_root.resolve():
        raise ConfigError(
            f"{source} holds pictures without rows: expected it to be the image root too, got {image_root}; leave the image "
            "root out, or name this folder"
        )


def _prepare(out: Path, wanted: Manifest, finished: Manifest | None) -> None:
    """Make `out` ready: keep what an interrupted run of the same work left, remove what other work left."""
    key = out / SCRATCH / "key.json"
    mine = wanted.model_dump(mode="json")
    begun = None
    if key.is_file():
        with contextlib.suppress(ValueError):
            begun = from_json(key.read_bytes())
    if begun == mine and finished is None:
        log.info("%s: going on where it was interrupted", out)
        return
    if finished is None and begun is None and _holds_something(out / IMAGES):
        raise ConfigError(f"{out}: expected a new folder or one made by augment, but it holds {IMAGES}/ of something else")
    if finished is not None:
        log.info("%s: source, pictures or settings have changed, making it anew", out)
    write_json(key, {"clearing": str(out)})  # so that a run killed from here on knows that all this is its own
    for name in ("manifest.json", SAMPLES, SKIPPED, STATES):
        (out / name).unlink(missing_ok=True)
    begun_work = (f"{SCRATCH}/{name}" for name in ("index", "again", "chunks"))
    for folder in (*(f"{IMAGES}/{name}" for name, format in FORMATS.items() if format.compose), EMBEDDED, *begun_work):
        shutil.rmtree(out / folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # something else may lie there
        (out / IMAGES).rmdir()
    write_json(key, mine)


def _holds_something(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _make(job: Job, pool: Workers, progress: Progress) -> Counter[str]:
    """Run all waves; chunks that are there already are only counted."""
    counts = Counter(rows=0, samples=0, skipped=0)
    made = Counter[Bucket]()
    with contextlib.closing(Index(job.scratch / "index")) as index:
        counts.update(index.counts)
        if index.counts.get("skipped"):  # those added below are samples, of which a row may give several
            counts["rows_skipped"] = index.counts["skipped"]
        for number, (total, tasks) in enumerate(waves(index, job.settings, job.seed, made)):
            done = 0
            for result in pool.run(_named(chunks(tasks, chunk_size(job.settings, total)), number)):
                counts.update(result)
                made.update({bucket: result[f"{bucket[0]}/{bucket[1]}"] for bucket in job.settings.shares()})
                done += result["samples"] + result["skipped"]
                progress(done, total)
    return counts


def _ordered(counts: Counter[str]) -> dict[str, int]:
    """rows, samples, skipped, then the rest by name."""
    first = ("rows", "samples", "skipped")
    return {name: counts[name] for name in [*first, *sorted(set(counts) - set(first))]}


def _named(chunked: Iterator[list[Task]], wave: int) -> Iterator[Chunk]:
    """Chunks with names that sort in their order."""
    return ((f"{wave:03d}-{i:08d}", chunk) for i, chunk in enumerate(chunked))


def _merge(job: Job, counts: Counter[str], source: Path) -> None:
    """Put the chunks together, in their order."""
    if not counts["samples"]:
        reasons = "; ".join(_examples(job)) or "it has no rows"
        for name in (SCRATCH, EMBEDDED):
            shutil.rmtree(job.out / name, ignore_errors=True)
        hint = (
            "; rows without answers are taken with `augment.unlabelled: true` (`--unlabelled`)"
            if "no answer" in reasons
            else ""
        )
        raise DataError(f"{source}: not one sample could be made of {counts['rows']} rows: {reasons}{hint}")
    with atomic_write(job.out / SAMPLES) as samples, atomic_write(job.out / SKIPPED) as skipped:
        for line in _skipped_while_reading(job):
            skipped.write(line)
        for path in sorted((job.scratch / "chunks").glob("*.jsonl")):
            with path.open(encoding="utf-8", newline="\n") as file:
                for line in file:
                    if line[0] != "=":
                        (samples if line[0] == "+" else skipped).write(line[1:])


def _skipped_while_reading(job: Job) -> Iterator[str]:
    with (job.scratch / "index" / "skipped.jsonl").open(encoding="utf-8", newline="\n") as file:
        yield from file


def _examples(job: Job) -> list[str]:
    """The first row skipped for each kind of reason."""
    first: dict[str, str] = {}
    lines: list[Any] = list(_skipped_while_reading(job))
    for path in sorted((job.scratch / "chunks").glob("*.jsonl")):
        lines += [line[1:] for line in path.read_text(encoding="utf-8").splitlines() if line[0] == "-"]
    for line in lines:
        skipped = Skipped.model_validate_json(line)
        first.setdefault(reason_kind(skipped.reason), f"row {skipped.id}: {skipped.reason}")
    return list(first.values())[:4]
