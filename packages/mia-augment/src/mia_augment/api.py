"""Augmentation as a function: rows in, samples out."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mia_augment.compose.collage import WriteImage
from mia_augment.compose.samples import Maker
from mia_augment.errors import DataError
from mia_augment.formats import Bucket
from mia_augment.images.decode import open_picture
from mia_augment.images.sniff import PictureFolder
from mia_augment.indexing.build import Choice, build_index
from mia_augment.indexing.index import Index
from mia_augment.read.dataset import rows_from
from mia_augment.records import Sample, Skipped
from mia_augment.rows.pictures_in_rows import EMBEDDED, EmbeddedPictures
from mia_augment.settings import AugmentSettings
from mia_augment.storage.files import read_jsonl
from mia_augment.workers.waves import check_served, waves


def augment(
    rows: Iterable[Any],
    image_root: Path,
    settings: AugmentSettings | None = None,
    *,
    seed: int = 0,
    write_image: WriteImage | None = None,
) -> Iterator[Sample | Skipped]:
    """Make multi-image samples of single-image rows.

    All rows are read first, since each may become the companion of any other; only a few numbers per row are kept in memory.

    Args:
        rows: what `read_rows` yields, or plain dicts (LLaVA's shape, `{image, question, answer}`, or as a Hugging Face
            data set yields them).
        image_root: folder the pictures' paths are relative to.
        settings: formats, numbers, companions; the paper's by default.
        seed: what is drawn depends on it and on each row's id, not on the order of the rows.
        write_image: called with the name and the pixels of every composed picture, and of pictures that came inside the rows
            (``embedded/..``); None: they are not kept.

    Yields:
        First the rows that cannot be used, then per task a sample, or why there is none.

    Raises:
        DataError: the image root is no folder, or no rows share a question where a format needs that.
    """
    settings = settings or AugmentSettings()
    PictureFolder(Path(image_root), settings.pictures)
    with tempfile.TemporaryDirectory(prefix="mia-augment-") as scratch:
        folder, embedded = Path(scratch) / "index", EmbeddedPictures(Path(scratch))
        pictures = PictureFolder(Path(image_root), settings.pictures, embedded.folder)
        asked = settings.asked_of_pictures
        found = rows_from(rows, embedded.store, unlabelled=settings.unlabelled, questions=asked)
        build_index(found, pictures, settings, folder, Choice())
        if write_image is not None:
            _hand_over(embedded.folder, settings, write_image)
        yield from read_jsonl(folder / "skipped.jsonl", Skipped)
        with contextlib.closing(Index(folder)) as index:
            check_served(index, settings)
            yield from _made(index, Maker(index, pictures, settings, seed, write_image), settings, seed)


def _made(index: Index, maker: Maker, settings: AugmentSettings, seed: int) -> Iterator[Sample | Skipped]:
    """The result of every task, wave by wave."""
    made = Counter[Bucket]()
    for _, tasks in waves(index, settings, seed, made):
        for task in tasks:
            result = maker.make(task)
            if isinstance(result, Sample):
                made[result.format, result.parts] += 1
            yield result


def _hand_over(folder: Path, settings: AugmentSettings, write_image: WriteImage) -> None:
    """Give the caller the pictures that came inside the rows, except broken ones, whose rows are skipped."""
    for path in sorted((folder / EMBEDDED).rglob("*.*")):
        with contextlib.suppress(DataError):
            write_image(path.relative_to(folder).as_posix(), open_picture(path, limits=settings.pictures))
