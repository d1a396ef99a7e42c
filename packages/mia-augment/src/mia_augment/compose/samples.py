"""Making samples: a row, a format and a number of parts become pictures and a prompt."""

from __future__ import annotations

import functools
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import NamedTuple

from mia_augment.compose.collage import Collage, WriteImage
from mia_augment.compose.companions import Part, TooFew, companions, sharing_turns
from mia_augment.compose.questions import name_target
from mia_augment.compose.shared_questions import SharedParts
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


class _Asked(NamedTuple):
    """What a sample asks."""

    turns: list[Turn]
    named: list[int] | None


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
        turn, images, parts, regions = self._arrange(task.row, row, sample_id, format, target, count, rng)
        question, answers = row.turns[turn][0], [part.answer for part in parts]
        asked = self._asked(row.turns[turn:], format, regions, answers, target, rng)
        return Sample(
            id=sample_id,
            format=name,
            images=images,
            prompt=format.header(count) + asked.turns[0].prompt,
            answer=asked.turns[0].answer,
            regions=regions,
            target=target,
            named=asked.named,
            source=Source(
                ids=[part.id for part in parts],
                paths=[part.path for part in parts],
                question=question,
                answers=answers,
            ),
            followups=asked.turns[1:],
        )

    def _asked(
        self,
        turns: list[list[str]],
        format: Format,
        regions: list[Region],
        answers: list[str | None],
        target: int,
        rng: Random,
    ) -> _Asked:
        """The turns in the format's words; a question about several pictures stands alone."""
        labels, templates = [region.label for region in regions], self._settings.templates
        if format.shared is None:
            named = [Turn(prompt=name_target(q, format, labels[target], templates, rng), answer=a) for q, a in turns]
            return _Asked(named, None)
        places = [place for place, answer in enumerate(answers) if answer]
        if format.shared.named == 2:
            places = sorted([target, rng.choice([place for place in places if place != target])])
        prompt, answer = format.shared.ask(SharedParts(turns[0][0], labels, answers, places, target))
        return _Asked([Turn(prompt=prompt, answer=answer)], places)

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
    ) -> tuple[int, list[str], list[Part], list[Region]]:
        """The turn that is asked, image names, parts in their places, and regions."""
        sharing = self._settings.sharing(format.name, count)
        turns = sharing_turns(self._index, number, row, sharing + 1) if sharing else [0]
        found = TooFew(0, sharing=True)
        for turn in turns:
            own = Part(row.id, row.image, row.turns[turn][1] or None)
            others = companions(self._index, number, row, rng, turn=turn, sharing=sharing)
            try:
                if format.compose:
                    name, parts, regions = self._collage.make(sample_id, format, own, target, count, others)
                    return turn, [name], parts, regions
                parts = [own if place == target else next(others) for place in range(count)]
                return turn, [part.path for part in parts], parts, _whole_images(format, count)
            except TooFew as error:
                found = error
        raise DataError(self._too_few(found, row, count, sharing)) from found

    def _too_few(self, error: TooFew, row: StoredRow, count: int, sharing: int) -> str:
        here = self._settings.companions == "same_source"
        where = f"the source set of {row.image!r}" if here else "the data"
        if error.sharing:
            return (
                f"no question in common: {where} has {error.found} other pictures whose rows answer a question of this row "
                f"otherwise, {sharing} are needed"
            )
        return (
            f"too few companions: {where} has {error.found} other usable pictures whose answer differs, {count - 1} are needed"
        )


@functools.cache
def _whole_images(format: Format, count: int) -> list[Region]:
    return [Region(image=i, label=label) for i, label in enumerate(format.labels(count))]


def _cumulated(shares: dict[Bucket, float]) -> tuple[list[Bucket], list[float]]:
    return list(shares), list(accumulate(shares.values()))


def _drawn(cumulated: tuple[list[Bucket], list[float]], rng: Random) -> Bucket:
    buckets, bounds = cumulated
    return buckets[min(bisect_right(bounds, rng.random() * bounds[-1]), len(buckets) - 1)]
