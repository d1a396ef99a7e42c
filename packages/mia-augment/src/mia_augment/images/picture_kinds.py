"""Name the kind of a file that is no readable picture by its first bytes; read HEIC, which needs an extra."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

from PIL import Image

from mia_augment.read.text_files import LFS

HEIC = "HEIF"
"""Pillow's name of the format, once pillow-heif has taught it."""
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_ELSE = {
    LFS: "a Git LFS pointer; fetch the picture with `git lfs pull`",
    b"<svg": "an SVG drawing, which is not read; render it as PNG",
    b"<?xml": "XML, perhaps an SVG drawing, which is not read",
    b"<!doctype html": "a web page, as a failed download leaves; fetch the picture again",
    b"<html": "a web page, as a failed download leaves; fetch the picture again",
    b"{": "a text (JSON?), perhaps what a server answered instead of the picture",
    b"%pdf": "a PDF, which is not read",
    b"%!ps": "PostScript, which is not read since it is a program",
    b"pk\x03\x04": "a ZIP archive",
}


@functools.cache
def learn_heic() -> bool:
    """Teach Pillow to read HEIC where pillow-heif is installed (extra ``mia-augment[heic]``); returns whether it is."""
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return HEIC in Image.OPEN


def needs_heic(path: Path) -> bool:
    """Whether a file is a HEIC picture that cannot be read for want of pillow-heif."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS and not learn_heic()


def what_it_is(path: Path) -> str | None:
    """The kind of a file that Pillow cannot read, in words; None: unknown."""
    with path.open("rb") as file:
        head = file.read(64)
    return next((what for magic, what in _ELSE.items() if head.lstrip().lower().startswith(magic)), None)
