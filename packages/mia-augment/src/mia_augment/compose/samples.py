"""Making samples: a row, a format and a number of parts become pictures and a prompt."""

from __future__ import annotations

import functools
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from mia_augment.compose.collage import Collage, WriteImage
from mia_augment.compose.companions import Part, TooFew, companions
from mia_augment.compose.questions import name_target
from mia_augment.errors import DataError
from mia_augment.formats import FORMATS, Bucket, Format
from mia_augment.images.sniff import PictureFolder
from mia_augment.indexing.index import Index, StoredRow
from mia_augment.records import Region, Sample, Skipped, Source, Turn
from mia_augment.rows.coordinates import holds_coordinates
from mia_augment.seeds import seed_from
from mia_augment.settings import AugmentSettings


@dataclass(frozen=True, slots=True)
class Task:
    """One sample to make."""

    row: int
    """Number of the row in the index."""
    bucket: Bucket | None = None
    """None: drawn by the shares."""
    copy: int = 0
    """Distinguishes several samples of one row."""


class Maker:
    """Makes the sample of a task; the same one in any order and in any process."""

    def __init__(
        self, index: Index, pictures: PictureFolder, settings: AugmentSettings, seed: int, write_image: WriteImage | None
    ) -> None:
        self._index, self._settings, self._seed = index, settings, seed
        self._collage = Collage(pictures, settings, write_image)
        shares = settings.shares()
        self._shares = _cumulated(shares)
        self._unmoved = _cumulated({bucket: share for bucket, share in shares.items() if not FORMATS[bucket[0]].compose})

    def make(self, task: Task) -> Sample | Skipped:
        """The sample, its composed picture written; or why there is none."""
        row = self._index.row(task.row)
        try:
            return self._sample(task, row)
        except DataError as error:
            return Skipped(id=row.id, reason=str(error))

    def _sample(self, task: Task, row: StoredRow) -> Sample:
        rng = Random(seed_from(self._seed, row.id, (task.bucket, task.copy)))
        name, count = self._bucket(task, row, rng)
        format = FORMATS[name]
        target = int(rng.random() * count) if format.target == "anywhere" else count - 1
        sample_id = f"{row.id}-{name}{count}" + (f"-{task.copy}" if task.copy else "")
        images, parts, regions = self._arrange(task.row, row, sample_id, format, target, count, rng)
        question, answer = row.turns[0]
        templates, label = self._settings.templates, regions[target].label
        return Sample(
            id=sample_id,
            format=name,
            images=images,
            prompt=format.header(count) + name_target(question, format, label, templates, rng),
            answer=answer,
            regions=regions,
            target=target,
            source=Source(
                ids=[part.id for part in parts],
                paths=[part.path for part in parts],
                question=question,
                answers=[part.answer for part in parts],
            ),
            followups=[Turn(prompt=name_target(q, format, label, templates, rng), answer=a) for q, a in row.turns[1:]],
        )

    def _bucket(self, task: Task, row: StoredRow, rng: Random) -> Bucket:
        """The format and number of a task; a row with coordinates gets a format that leaves its pixels in place."""
        bucket = task.bucket or _drawn(self._shares, rng)
        if FORMATS[bucket[0]].compose and any(holds_coordinates(text) for turn in row.turns for text in turn):
            if task.bucket is not None or not self._unmoved[0]:
                raise DataError(f"coordinates: they would be wrong in the format {bucket[0]}, which moves the pixels")
            return _drawn(self._unmoved, rng)
        return bucket

    def _arrange(
        self, number: int, row: StoredRow, sample_id: str, format: Format, target: int, count: int, rng: Random
    ) -> tuple[list[str], list[Part], list[Region]]:
        """Image names, parts in their places, and regions."""
        own, others = Part(row.id, row.image, row.turns[0][1] or None), companions(self._index, number, row, rng)
        try:
            if format.compose:
                name, parts, regions = self._collage.make(sample_id, format, own, target, count, others)
                return [name], parts, regions
            parts = [own if place == target else next(others) for place in range(count)]
            return [part.path for part in parts], parts, _whole_images(format, count)
        except TooFew as error:
            where = "the data" if self._settings.companions == "any" else f"the source set of {row.image!r}"
            raise DataError(
                f"too few companions: {where} has {error.found} other usable pictures whose answer differs, "
                f"{count - 1} are needed"
            ) from error


@functools.cache
def _whole_images(format: Format, count: int) -> list[Region]:
    return [Region(image=i, label=label) for i, label in enumerate(format.labels(count))]


def _cumulated(shares: dict[Bucket, float]) -> tuple[list[Bucket], list[float]]:
    return list(shares), list(accumulate(shares.values()))


def _drawn(cumulated: tuple[list[Bucket], list[float]], rng: Random) -> Bucket:
    buckets, bounds = cumulated
    return buckets[min(bisect_right(bounds, rng.random() * bounds[-1]), len(buckets) - 1)]
