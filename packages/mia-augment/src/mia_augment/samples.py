"""Making samples: a row, a format and a number of parts become pictures and a prompt."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from PIL import Image

from mia_augment.compose import RESAMPLE, Composed, compose_grid, compose_pic_in_pic
from mia_augment.errors import DataError
from mia_augment.index import Index, answer_hash
from mia_augment.pictures import open_picture
from mia_augment.probe import PictureFolder, hash64
from mia_augment.prompts import label, sequence_header, single_header
from mia_augment.questions import MOVED, holds_coordinates, name_target
from mia_augment.records import Format, Region, Sample, Skipped, Source, Turn
from mia_augment.rows import Row
from mia_augment.settings import AugmentSettings

WriteImage = Callable[[str, Image.Image], None]
"""Takes the name of a composed picture (``images/grid/3f/17-grid4.jpg``) and the picture."""

_TRIES = 8
_LOSSLESS = frozenset({"PNG", "BMP", "GIF", "TIFF", "PPM"})
_RESAMPLERS = {"lanczos": RESAMPLE, "bicubic": Image.Resampling.BICUBIC, "hamming": Image.Resampling.HAMMING}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Task:
    """One sample to make."""

    row: int
    """Number of the row in the index."""
    bucket: tuple[Format, int] | None = None
    """(format, number of parts); None: drawn by the shares."""
    copy: int = 0
    """Distinguishes several samples of one row."""


@dataclass(frozen=True, slots=True)
class _Part:
    id: str
    path: str
    key: int


class _Impossible(Exception):
    """Why no sample can be made of a row; the kind stands before the first colon."""


class Maker:
    """Makes the sample of a task; the same one in any order and in any process."""

    def __init__(
        self, index: Index, pictures: PictureFolder, settings: AugmentSettings, seed: int, write_image: WriteImage | None
    ) -> None:
        self._index, self._pictures, self._settings = index, pictures, settings
        self._seed, self._write = seed, write_image
        shares = settings.shares()
        self._shares = _cumulated(shares)
        self._unmoved = _cumulated({bucket: share for bucket, share in shares.items() if bucket[0] not in MOVED})

    def make(self, task: Task) -> Sample | Skipped:
        """The sample, its composed picture written; or why there is none."""
        row = self._index.row(task.row)
        try:
            return self._sample(task, row)
        except _Impossible as reason:
            return Skipped(id=row.id, reason=str(reason))
        except DataError as error:
            return Skipped(id=row.id, reason=str(error))

    def _sample(self, task: Task, row: Row) -> Sample:
        bucket = "" if task.bucket is None else f"{task.bucket[0]}{task.bucket[1]}"
        rng = Random(hash64(str(self._seed).encode(), row.id.encode(), bucket.encode(), str(task.copy).encode()))
        format, count = self._bucket(task, row, rng)
        target = rng.randrange(count) if format in ("sequence", "grid") else count - 1
        own = _Part(row.id, row.image, self._index.key[task.row])
        others = self._companions(task.row, row, own.key, count - 1, rng)
        sample_id = f"{row.id}-{format}{count}" + (f"-{task.copy}" if task.copy else "")
        if format in MOVED:
            opened = self._open(own, target, count, others, format)
            parts = [part for part, _ in opened]
            images, regions = self._compose(sample_id, format, [picture for _, picture in opened])
        else:
            parts = [next(others) for _ in range(count - 1)]
            parts.insert(target, own)
            images = [part.path for part in parts]
            regions = [Region(image=i, label=label(i)) for i in range(count)]
        question, answer = row.turns[0]
        templates = self._settings.templates
        prompts = [name_target(q, format, regions[target].label, templates, rng) for q, _ in row.turns]
        header = sequence_header(count) if format == "sequence" else single_header()
        return Sample(
            id=sample_id,
            format=format,
            images=images,
            prompt=header + prompts[0],
            answer=answer,
            regions=regions,
            target=target,
            source=Source(
                ids=[part.id for part in parts],
                paths=[part.path for part in parts],
                question=question,
                answers=[answer if i == target else self._answer(part.key, question) for i, part in enumerate(parts)],
            ),
            followups=[Turn(prompt=p, answer=a) for p, (_, a) in zip(prompts[1:], row.turns[1:], strict=True)],
        )

    def _bucket(self, task: Task, row: Row, rng: Random) -> tuple[Format, int]:
        """The format and number of a task; a row with coordinates gets a format that leaves its pixels in place."""
        fixed = any(holds_coordinates(text) for turn in row.turns for text in turn)
        if task.bucket is not None:
            if fixed and task.bucket[0] in MOVED:
                raise _Impossible(f"coordinates: they would be wrong in the format {task.bucket[0]}, which moves the pixels")
            return task.bucket
        buckets, bounds = self._unmoved if fixed else self._shares
        if not buckets:
            raise _Impossible("coordinates: they would be wrong in all the formats asked for, which move the pixels")
        return buckets[min(bisect_right(bounds, rng.random() * bounds[-1]), len(buckets) - 1)]

    def _companions(self, number: int, row: Row, key: int, needed: int, rng: Random) -> Iterator[_Part]:
        """Pictures of the same source set in random order: all different, and none that would give the same answer.

        Raises:
            _Impossible: asked for more than there are.
        """
        pool = self._index.pool(number)
        question, same = row.turns[0][0], answer_hash(row.turns[0][1])
        used, found = {key}, 0
        for place in _shuffled(pool, rng):
            companion, other = self._index.pooled(place)
            if other in used or any(answer == same for answer, _, _ in self._index.answers(other, question)):
                continue
            used.add(other)
            found += 1
            part = self._index.row(companion)
            yield _Part(part.id, part.image, other)
        where = f"the source set of {row.image!r}" if self._settings.companions == "same_source" else "the data"
        raise _Impossible(
            f"too few companions: {where} has {found} other usable pictures whose answer differs, {needed} are needed"
        )

    def _answer(self, key: int, question: str) -> str | None:
        """What a picture's own row answers to a question."""
        for _, row, turn in self._index.answers(key, question):
            return self._index.row(row).turns[turn][1]
        return None

    def _open(
        self, own: _Part, target: int, count: int, others: Iterator[_Part], format: Format
    ) -> list[tuple[_Part, Image.Image]]:
        """The parts in their places, opened; a companion that turns out broken is replaced by the next."""
        cell = (self._settings.grid.cell, self._settings.grid.cell)
        opened = {target: (own, self._picture(own, cell if format == "grid" else None))}
        for place in range(count):
            while place not in opened:
                part = next(others)
                try:
                    opened[place] = part, self._picture(part, cell if format == "grid" else None)
                except DataError:
                    continue
        return [opened[place] for place in range(count)]

    def _picture(self, part: _Part, cell: tuple[int, int] | None) -> Image.Image:
        name, path = self._pictures.locate(part.path)
        try:
            return open_picture(path, limits=self._settings.pictures, at_least=cell)
        except DataError as error:
            raise DataError(str(error).replace(str(path), repr(name))) from error

    def _compose(self, sample_id: str, format: Format, pictures: list[Image.Image]) -> tuple[list[str], list[Region]]:
        """Names of the images and the regions of a format that moves pixels."""
        resample = self._resampler(pictures)
        if format == "grid":
            grid = self._settings.grid
            labels = [label(i) for i in range(len(pictures))]
            composed = compose_grid(pictures, labels, rows=grid.rows, style=grid.style, resample=resample)
        else:
            labels = ["outer", "inner"]
            inset = self._settings.pic_in_pic
            composed = compose_pic_in_pic(*pictures, scale=inset.scale, position=inset.position, resample=resample)
        name = self._name(sample_id, format, pictures, composed)
        if self._write is not None:
            self._write(name, composed.image)
        regions = [Region(image=0, box=box, label=text) for box, text in zip(composed.boxes, labels, strict=True)]
        return [name], regions

    def _resampler(self, pictures: list[Image.Image]) -> Image.Resampling:
        settings = self._settings.pictures
        if settings.resample != "auto":
            return _RESAMPLERS[settings.resample]
        fine = all(picture.width * picture.height <= settings.fine_pixels for picture in pictures)
        return _RESAMPLERS["lanczos" if fine else "hamming"]

    def _name(self, sample_id: str, format: Format, pictures: list[Image.Image], composed: Composed) -> str:
        settings = self._settings.pictures
        exact = all(picture.format in _LOSSLESS for picture in pictures)
        small = composed.image.width * composed.image.height <= settings.png_pixels
        png = settings.encoding == "png" or (settings.encoding == "auto" and exact and small)
        name = composed_name(sample_id, format, "png" if png else "jpg")
        try:
            self._pictures.locate(name)
        except DataError:
            return name
        raise DataError(f"name taken: {name!r} lies in the image root too, so it could mean both; rename that folder")


def composed_name(sample_id: str, format: Format, suffix: str) -> str:
    """Where the picture of a sample lies, relative to the stage's folder; distinct for distinct ids."""
    digest = f"{hash64(sample_id.encode()):016x}"
    plain = _PLAIN_NAME.fullmatch(sample_id) is not None
    stem = sample_id if plain else re.sub(r"[^A-Za-z0-9_-]+", "_", sample_id)[:60].strip("_") + "-" + digest
    return f"images/{format}/{digest[:2]}/{stem}.{suffix}"


def _cumulated(shares: dict[tuple[Format, int], float]) -> tuple[list[tuple[Format, int]], list[float]]:
    return list(shares), list(accumulate(shares.values()))


def _shuffled(places: range, rng: Random) -> Iterator[int]:
    """All places in random order, without holding them: some draws first, then, should they not suffice, a walk over all."""
    size, seen = len(places), set[int]()
    if not size:
        return
    for _ in range(_TRIES + size // 2 if size < 64 else 64):
        place = rng.randrange(size)
        if place not in seen:
            seen.add(place)
            yield places[place]
    start = rng.randrange(size)
    for step in range(size):
        place = (start + step) % size
        if place not in seen:
            yield places[place]
