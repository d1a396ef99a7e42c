"""Pictures as rows bring them (paths, bytes, base64, data URIs, objects of these), written out by their content."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mia_augment.embedded import EmbeddedPictures
from mia_augment.errors import DataError
from mia_augment.pictures import check_file, open_picture
from mia_augment.settings import PictureSettings

from mia_select.importing.messages import Refused, shown

IMAGES = "images"
"""Folder of the pictures in an imported folder."""
_KEYS = ("bytes", "image", "image_url", "url", "path", "base64", "data")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{1,20})://", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]{64,}={0,2}")
_TO_STANDARD = str.maketrans("-_", "+/")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\0")
"""How the files of picture formats begin, to tell base64 from a path."""


class WrittenPictures:
    """Opens every picture once and writes it below a folder, each content once."""

    def __init__(self, root: Path, out: Path, limits: PictureSettings | None = None) -> None:
        self.root, self.limits = root, limits or PictureSettings()
        self._stored = EmbeddedPictures(out, below=IMAGES)
        self._sound: set[str] = set()
        self._by_path: dict[Path, str] = {}

    def __call__(self, picture: Any, exported: str | None = None) -> str:
        """Name of the picture, relative to the folder.

        Raises:
            Refused: no picture, or one that would have to be fetched.
            DataError: a file that is missing, or cannot be opened as a picture.
        """
        found = picture_source(picture, self.root)
        if isinstance(found, bytes):
            return self._store(found, "in the row")
        if found not in self._by_path:
            check_file(found, self.limits)
            self._by_path[found] = self._store(found.read_bytes(), str(found))
        return self._by_path[found]

    def _store(self, data: bytes, what: str) -> str:
        if len(data) > self.limits.max_bytes:
            raise DataError(f"picture too large: {what}: {len(data)} bytes, more than max_bytes {self.limits.max_bytes}")
        name = self._stored.store(data)
        if name not in self._sound:
            path = self._stored.folder / name
            try:
                open_picture(path, limits=self.limits)
            except DataError as error:
                path.unlink(missing_ok=True)
                raise DataError(str(error).replace(str(path), what)) from None
            self._sound.add(name)
        return name


def named_picture(picture: Any, exported: str | None = None) -> str:
    """The name of a picture that stays where it is: as it was exported, else the path of the row.

    Raises:
        Refused: the picture stands in the row itself.
    """
    if exported is not None:
        return exported
    if isinstance(picture, Mapping):
        picture = next((picture[key] for key in ("path", "image", "url", "image_url") if picture.get(key)), picture)
    if isinstance(picture, str) and picture and not _is_data_uri(picture) and _decoded(picture) is None:
        return picture
    raise Refused("bad row: its picture stands in the row itself; `mia import` writes such pictures out")


def picture_source(picture: Any, root: Path) -> Path | bytes:
    """The bytes of a picture, or the path of its file.

    Args:
        picture: a path (absolute, relative to `root`, or `file://`), base64, a data URI, bytes, or an object with one of these.
        root: folder to which paths are relative.

    Raises:
        Refused: none of these, damaged base64, or an address in the net.
    """
    if isinstance(picture, Mapping):
        return picture_source(next((picture[key] for key in _KEYS if picture.get(key)), None), root)
    if isinstance(picture, bytes) and picture:
        return bytes(picture)
    if not isinstance(picture, str) or not picture.strip():
        raise Refused(f"no image: expected a path, bytes or base64 as picture, got {shown(picture)}")
    if _is_data_uri(picture):
        return _from_uri(picture)
    if (data := _decoded(picture)) is not None:
        return data
    if scheme := _SCHEME.match(picture):
        if scheme[1].lower() != "file":
            raise Refused(f"no image: {shown(picture)} is an address; nothing is fetched: download it and give its path")
        picture = unquote(picture[scheme.end() :])
    if len(picture) > 4096:
        raise Refused(f"missing file: expected a path or base64 as picture, got a text of {len(picture)} characters")
    return root / picture


def _is_data_uri(text: str) -> bool:
    return text[:5].lower() == "data:" and "," in text[:256]


def _from_uri(text: str) -> bytes:
    kind, _, data = text.partition(",")
    data = unquote(data) if "%" in data[:4096] else data
    return _bytes_of(data) if kind.lower().rstrip().endswith(";base64") else data.encode()


def _decoded(text: str) -> bytes | None:
    """The bytes of a picture given as base64; None: the text is something else, as its beginning says."""
    head = "".join(text[:100].split())[:64]
    if len(head) < 64 or not _BASE64.fullmatch(text.strip()):
        return None
    return _bytes_of(text) if _bytes_of(head).startswith(_MAGIC) else None


def _bytes_of(text: str) -> bytes:
    """Base64 of either alphabet, with or without padding."""
    whole = "".join(text.split()).translate(_TO_STANDARD).rstrip("=")
    try:
        return base64.b64decode(whole + "=" * (-len(whole) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(f"broken picture: the base64 of the row is damaged: {error}") from None
