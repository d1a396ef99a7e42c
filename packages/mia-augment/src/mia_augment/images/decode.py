"""Opening pictures of any kind as plain RGB, and looking at files without decoding them."""

from __future__ import annotations

import functools
import io
import math
import os
import stat
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from mia_augment.errors import DataError
from mia_augment.images.geometry import fit
from mia_augment.images.greys import eight_bit, scale_clear_level
from mia_augment.images.jpeg import without_end
from mia_augment.images.picture_kinds import HEIC, learn_heic, needs_heic, what_it_is
from mia_augment.images.time_limit import open_in_subprocess
from mia_augment.images.whole import damage
from mia_augment.settings import PictureSettings

PICTURE_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", HEIC)
"""Kinds that are opened, judged by content, not by name. Others are refused: some (EPS) run programs."""
MAX_SCANS = 200
"""A JPEG of a few kilobytes can ask for hours of decoding by repeating scans; real ones have about ten."""

SLOWNESS = {"JPEG2000": 80, "AVIF": 30, HEIC: 30, "WEBP": 15}
"""Decoding time per pixel of noise, in scans of a progressive JPEG (about 6 ns on a 2020s core); others: up to 4."""
WORK_PER_SECOND, BYTES_PER_SECOND = 15_000_000, 500_000
"""A picture is read in this process if it has at most so many pixels times scans, and bytes (of which a parser may make much
work too), for each of `max_seconds`: a tenth and a fifth of what an ordinary core does in that time."""

PNG_LEVEL = 3
"""zlib level of composed PNGs: drawings get hardly smaller above it."""
_SCAN = b"\xff\xda"
_JPEGS = ("JPEG", "MPO")
_READ_WHOLE = (*_JPEGS, "PNG", "WEBP", "AVIF", "TIFF")
"""Kinds of which the whole file is looked at before it is decoded; TIFF, as Pillow ignores the orientation of one it maps."""
_ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
_DEFAULTS = PictureSettings()


def open_picture(
    path: Path | str,
    *,
    limits: PictureSettings | None = None,
    fit_into: tuple[int, int] | None = None,
) -> Image.Image:
    """Read a picture as RGB, upright.

    EXIF orientation is applied, transparency laid on white, 16-bit scaled down, CMYK and palettes converted; of an
    animation the first frame is taken. The `format` of the result says what kind of file it was.

    Args:
        path: any file of `PICTURE_FORMATS`, whatever its extension.
        limits: largest number of pixels and bytes, and longest time. What may take long is decoded in a process of its own.
        fit_into: (width, height) px into which the caller will shrink it, keeping its aspect ratio. A JPEG at least twice that
            large may come at 1/2, 1/4 or 1/8 of its size, but never smaller than needed, which saves most of the decoding.

    Raises:
        DataError: missing, empty, cut off, too large, too slow, or no picture; the message says which.
    """
    path, limits = Path(path), limits or _DEFAULTS
    size = check_file(path, limits)
    try:
        if size <= limits.max_seconds * BYTES_PER_SECOND:
            return decode(path, limits, fit_into, most_work=limits.max_seconds * WORK_PER_SECOND)
    except _MuchWork:
        pass
    return open_in_subprocess(path, limits, fit_into)


class _MuchWork(Exception):
    """A picture may take long to decode."""


def decode(path: Path, limits: PictureSettings, fit_into: tuple[int, int] | None, most_work: float = math.inf) -> Image.Image:
    """Do the work of `open_picture`, for a file that `check_file` has passed, in this process and however long it takes.

    Raises:
        DataError: as `open_picture`.
        _MuchWork: it would take more than `most_work` (pixels times scans).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_readable()) as image:
                _check_size(image, path, limits)
                source = _checked(image, path, most_work)
            with Image.open(source, formats=_readable()) as image:
                if fit_into is not None and image.format in _JPEGS:
                    _reduce_early(image, fit_into)
                scale_clear_level(image)
                image.load()
                picture = upright_rgb(image)
                picture.format = image.format
                return picture
    except (DataError, _MuchWork):
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"picture too large: {path}: {error}") from error
    except Exception as error:  # Pillow's decoders raise a dozen types on broken input
        raise DataError(f"broken picture: {path}: {_why(error, path)}") from error


@functools.cache
def _readable() -> tuple[str, ...]:
    """Those of `PICTURE_FORMATS` that this build of Pillow can read."""
    Image.init()
    learn_heic()
    return tuple(name for name in PICTURE_FORMATS if name in Image.OPEN)


def check_file(path: Path | str, limits: PictureSettings, status: os.stat_result | None = None) -> int:
    """Size in bytes of a file, which must be plain, not empty and within the limits."""
    try:
        status = status or os.stat(path)  # noqa: PTH116
    except (OSError, ValueError) as error:
        raise DataError(f"missing file: {path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"missing file: {path}: expected a file, got a folder or a device")
    if status.st_size == 0:
        raise DataError(f"broken picture: {path}: the file is empty (0 bytes)")
    if status.st_size > limits.max_bytes:
        raise DataError(f"picture too large: {path}: {status.st_size} bytes, more than max_bytes {limits.max_bytes}")
    return status.st_size


def check_pixels(size: tuple[int, int], path: Path | str, limits: PictureSettings) -> None:
    """Raise unless (width, height) is within `limits.max_pixels`."""
    if size[0] * size[1] > limits.max_pixels:
        raise DataError(
            f"picture too large: {path}: {size[0]} x {size[1]} px is {size[0] * size[1]} pixels, "
            f"more than max_pixels {limits.max_pixels}"
        )


def _check_size(image: Image.Image, path: Path, limits: PictureSettings) -> None:
    check_pixels(image.size, path, limits)
    if 0 in image.size:
        raise DataError(f"broken picture: {path}: it has no pixels, its size is {image.width} x {image.height}")


def _checked(image: Image.Image, path: Path, most_work: float) -> Path | io.BytesIO:
    """The source to decode: the file itself, or its bytes where only these show that something is missing."""
    data = path.read_bytes() if image.format in _READ_WHOLE else b""
    scans = SLOWNESS.get(image.format or "", 4) if image.format not in _JPEGS else _scans(data)
    if image.format in _JPEGS and scans > MAX_SCANS:
        raise DataError(f"broken picture: {path}: a JPEG of {scans} scans, more than {MAX_SCANS}")
    if image.width * image.height * scans > most_work:
        raise _MuchWork
    if reason := damage(data, image.format, image.size):
        raise DataError(f"broken picture: {path}: {reason}")
    if not data:
        return path
    return io.BytesIO(without_end(data) or data if image.format in _JPEGS else data)


def _scans(data: bytes) -> int:
    """How many times a JPEG decoder may go over the picture: once, where the first scan holds all its components."""
    position, components = 2, 256
    while position + 10 <= len(data) and data[position] == 0xFF and data[position + 1] != _SCAN[1]:
        if data[position + 1] in (0xC0, 0xC1):  # a sequential frame; the others need several scans
            components = data[position + 9]
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    once = data[position : position + 2] == _SCAN and data[position + 4] >= components
    return 1 if once else data.count(_SCAN)


def _reduce_early(image: Image.Image, bounds: tuple[int, int]) -> None:
    """Let the JPEG decoder shrink by a power of two, as far as the result still covers what fits into the bounds."""
    lying = _orientation(image) in _ON_ITS_SIDE
    image.draft(image.mode, fit(image.size, bounds[::-1] if lying else bounds))


def _why(error: Exception, path: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        if needs_heic(path):
            return "a HEIC picture; install what reads it: pip install 'mia-augment[heic]'"
        what = what_it_is(path)
        return f"not a picture but {what}" if what else "not a picture of a known kind, or its beginning is damaged"
    return str(error) or type(error).__name__


def upright_rgb(image: Image.Image) -> Image.Image:
    """A loaded picture as RGB with its EXIF orientation applied."""
    source = image
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = eight_bit(image, source)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white
    if image.mode != "RGB":
        return image.convert("RGB")
    image.info = {}
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1


def save_picture(picture: Image.Image, path: Path, suffix: str, settings: PictureSettings) -> None:
    """Write a composed picture as PNG (``.png``) or as JPEG without chroma subsampling, whatever the name of `path`."""
    if suffix == ".png":
        picture.save(path, "PNG", compress_level=PNG_LEVEL)
    else:
        picture.save(path, "JPEG", quality=settings.jpeg_quality, subsampling=0)
