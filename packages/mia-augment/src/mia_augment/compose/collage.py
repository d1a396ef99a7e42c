"""Composed pictures of samples: reading the parts, putting them together, naming the result."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from mia_augment.compose.canvas import RESAMPLE, Composed
from mia_augment.compose.companions import Part
from mia_augment.errors import DataError
from mia_augment.formats import Format
from mia_augment.images.decode import open_picture
from mia_augment.images.sniff import PictureFolder
from mia_augment.images.time_limit import TooSlow
from mia_augment.records import Region
from mia_augment.seeds import hash64
from mia_augment.settings import AugmentSettings

WriteImage = Callable[[str, Image.Image], None]
"""Takes the name of a composed picture (``images/grid/3/17-grid4.jpg``) and the picture."""

_LOSSLESS = frozenset({"PNG", "BMP", "GIF", "TIFF", "PPM"})
_RESAMPLERS = {"lanczos": RESAMPLE, "bicubic": Image.Resampling.BICUBIC, "hamming": Image.Resampling.HAMMING}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class Collage:
    """Makes the pictures of the formats that move pixels."""

    def __init__(self, pictures: PictureFolder, settings: AugmentSettings, write_image: WriteImage | None) -> None:
        self._folder, self._settings, self._write = pictures, settings, write_image
        self._too_slow: dict[str, str] = {}

    def make(
        self, sample_id: str, format: Format, own: Part, target: int, count: int, others: Iterator[Part]
    ) -> tuple[str, list[Part], list[Region]]:
        """Compose and write the picture of a sample.

        A companion that turns out to be broken is replaced by the next one.

        Returns:
            Its name, the parts in their places, and their regions.

        Raises:
            DataError: the row's own picture is broken.
        """
        opened = {target: (own, self._open(own, format))}
        for place in range(count):
            while place not in opened:
                part = next(others)
                with contextlib.suppress(DataError):
                    opened[place] = part, self._open(part, format)
        parts, pictures = zip(*(opened[place] for place in range(count)), strict=True)
        if format.compose is None:
            raise ValueError(f"{format.name} composes no picture")
        composed = format.compose(pictures, getattr(self._settings, format.name), self._resampler(pictures))
        name = self._name(sample_id, format.name, pictures, composed)
        if self._write is not None:
            self._write(name, composed.image)
        regions = [Region(image=0, box=box, label=text) for box, text in zip(composed.boxes, format.labels(count), strict=True)]
        return name, list(parts), regions

    def _open(self, part: Part, format: Format) -> Image.Image:
        if part.path in self._too_slow:  # once is enough
            raise DataError(self._too_slow[part.path])
        bounds = format.part_bounds(getattr(self._settings, format.name)) if format.part_bounds else None
        name, path, _ = self._folder.locate(part.path)
        try:
            return open_picture(path, limits=self._settings.pictures, fit_into=bounds)
        except DataError as error:
            reason = str(error).replace(path, repr(name))
            if isinstance(error, TooSlow):
                self._too_slow[part.path] = reason
            raise DataError(reason) from error

    def _resampler(self, pictures: Sequence[Image.Image]) -> Image.Resampling:
        settings = self._settings.pictures
        if settings.resample != "auto":
            return _RESAMPLERS[settings.resample]
        fine = all(picture.width * picture.height <= settings.fine_pixels for picture in pictures)
        return _RESAMPLERS["lanczos" if fine else "hamming"]

    def _name(self, sample_id: str, format: str, pictures: Sequence[Image.Image], composed: Composed) -> str:
        settings = self._settings.pictures
        exact = all(picture.format in _LOSSLESS for picture in pictures)
        small = composed.image.width * composed.image.height <= settings.png_pixels
        png = settings.encoding == "png" or (settings.encoding == "auto" and exact and small)
        name = composed_name(sample_id, format, "png" if png else "jpg")
        if Path(self._folder.root, name).exists():
            raise DataError(f"name taken: {name!r} lies in the image root too, so it could mean both; rename that folder")
        return name


def composed_name(sample_id: str, format: str, suffix: str) -> str:
    """Where the picture of a sample lies, relative to the stage's folder; distinct for distinct ids."""
    digest = f"{hash64(sample_id.encode()):016x}"
    plain = _PLAIN_NAME.fullmatch(sample_id) is not None
    stem = sample_id if plain else re.sub(r"[^A-Za-z0-9_-]+", "_", sample_id)[:60].strip("_") + "-" + digest
    return f"images/{format}/{digest[0]}/{stem}.{suffix}"
