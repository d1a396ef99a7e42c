"""What is known of pictures without decoding them: where they lie, whether they are whole, and which are the same."""

from __future__ import annotations

import errno
import os
import stat
import struct
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from mia_augment.errors import DataError
from mia_augment.images import jpeg
from mia_augment.images.decode import MAX_SCANS, check_file, check_pixels, open_picture
from mia_augment.images.picture_values import excerpt
from mia_augment.images.whole import damage
from mia_augment.rows.pictures_in_rows import EMBEDDED
from mia_augment.seeds import hash64
from mia_augment.settings import PictureSettings

SAMPLE = 2048
"""Bytes of the beginning and the end of a large file that stand for the whole."""
_WHOLE = 1 << 24
"""JPEGs and PNGs of up to so many bytes are read (not decoded) wholly where beginning and end do not tell enough."""
_NOWHERE = ("", ".")
_EXTENSIONS = tuple(
    case
    for name in ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic")
    for case in (name, name.upper())
)
_REMEMBERED_FOLDERS = 10_000
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_SCAN, _END = b"\xff\xda", b"\xff\xd9"


_two_numbers = struct.Struct(">HH").unpack_from


def read_at(file: int, start: int, size: int) -> bytes:
    """Bytes of a file, given by its descriptor."""
    if hasattr(os, "pread"):
        return os.pread(file, size, start)
    os.lseek(file, start, os.SEEK_SET)
    return os.read(file, size)


class PictureFolder:
    """The pictures below one folder, the image root, which no path may leave; and those that came inside the rows."""

    def __init__(self, root: Path, limits: PictureSettings, embedded: Path | None = None) -> None:
        if not root.is_dir():
            raise DataError(f"image root {root}: no such folder")
        self.root = os.path.realpath(root)
        self._roots = tuple({f"{path.rstrip('/')}/" for path in (self.root, Path(root).absolute().as_posix())})
        self.limits = limits
        self._embedded = os.path.realpath(embedded) if embedded else None
        self._folders: dict[str, str] = {}

    def locate(self, name: str) -> tuple[str, str, os.stat_result]:
        """(normalised name, absolute path, status) of a picture. An absolute path is taken where it begins with the image root.

        Raises:
            DataError: missing, or the path leads out of the image root, absolute, by ``..`` or by a symlink.
        """
        parts = [part for part in name.split("/") if part not in _NOWHERE]
        if name.startswith("/") and ".." not in parts:
            name = self._below_root("/" + "/".join(parts))
            parts = name.split("/")
        if name.startswith("/") or ".." in parts or not parts or (os.name == "nt" and (":" in name or "\\" in name)):
            raise DataError(
                f"outside the image root: expected a path relative to it, or absolute and below it, without '..', "
                f"got {excerpt(name, 200)}"
            )
        folder = "/".join(parts[:-1])
        try:
            path = f"{self._folders.get(folder) or self._real_folder(folder, name)}/{parts[-1]}"
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                path = os.path.realpath(path)
                self._inside(path, name, self.root)
                status = os.stat(path)  # noqa: PTH116
        except (OSError, ValueError) as error:
            raise DataError(self._why_missing(name, error)) from None
        return "/".join(parts), path, status

    def _below_root(self, path: str) -> str:
        """An absolute path relative to the image root, whichever way leads there; as it is where it lies elsewhere."""
        for candidate in (path, os.path.realpath(path)):
            for root in self._roots:
                if candidate.startswith(root):
                    return candidate[len(root) :]
        return path

    def _why_missing(self, name: str, error: OSError | ValueError) -> str:
        """That a picture is missing, or what else is wrong; with a hint where one lies nearby, which is never taken instead."""
        if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTDIR):
            return f"missing file: {excerpt(name, 200)}: {error.strerror}"
        near = next((other for other in _like(name) if other != name and self._is_file(other)), None)
        hint = f"; {near!r} is: mend the row, or the image root" if near else ""
        return f"missing file: {excerpt(name, 200)} is not in the image root{hint}"

    def _is_file(self, name: str) -> bool:
        """Whether the image root itself holds a file of that name."""
        path = os.path.realpath(f"{self.root}/{name}")
        return path.startswith(self.root.rstrip("/") + "/") and Path(path).is_file()

    def _real_folder(self, folder: str, name: str) -> str:
        root = self.root
        if self._embedded and folder.split("/")[0] == EMBEDDED and Path(self._embedded, EMBEDDED).is_dir():
            root = self._embedded
        real = os.path.realpath(f"{root}/{folder}")
        self._inside(real, name, root)
        if len(self._folders) > _REMEMBERED_FOLDERS:
            self._folders.clear()
        self._folders[folder] = real
        return real

    def _inside(self, path: str, name: str, root: str) -> None:
        if path != root and not path.startswith(root.rstrip("/") + "/"):
            raise DataError(f"outside the image root: a symlink of {name!r} leads out of it")

    def content_key(self, path: str, status: os.stat_result | None = None) -> int:
        """A hash by which the same picture is known under any name; the file is checked meanwhile.

        A JPEG or PNG whose header and end are sound is only decoded if `verify` says so; anything doubtful is. Of large JPEGs
        and PNGs the hash is that of their size, beginning and end, which differ wherever their compressed content does.

        Raises:
            DataError: empty, cut off, too large, too slow, or no picture.
        """
        size = check_file(path, self.limits, status)
        head, tail, pixels = _look(path, size)
        if pixels is None or self.limits.verify == "decode":
            open_picture(path, limits=self.limits)
            if not head.startswith((_JPEG, _PNG)):
                return hash64(Path(path).read_bytes())
        else:
            check_pixels(pixels, path, self.limits)
        return hash64(b"%d" % size, head, tail)


def _like(name: str) -> Iterator[str]:
    """Names that may be meant by one that does not exist: written otherwise, with another extension, or with fewer folders."""
    plain = name.replace("\\", "/").strip()
    yield from (plain, unquote(plain), plain.lower())
    yield from (unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))
    stem, point, extension = plain.rpartition(".")
    if not point or "/" in extension:
        stem = plain
    yield from (f"{stem}.{other}" for other in _EXTENSIONS)
    parts = plain.split("/")
    yield from ("/".join(parts[place:]) for place in range(1, min(len(parts), 8)))


def _look(path: str, size: int) -> tuple[bytes, bytes, tuple[int, int] | None]:
    """Beginning and end of a file (of a small one: all of it, and its last bytes), and its pixels if it is sound."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            if size <= 2 * SAMPLE:
                head = os.read(file, 2 * SAMPLE)
                return head, head[-16:], _whole_size(head)
            head = os.read(file, SAMPLE)
            tail = read_at(file, size - SAMPLE, SAMPLE)
        finally:
            os.close(file)
        pixels = sound_size(head, tail)
        if jpeg.ZEROS in tail or (pixels is None and head.startswith(_JPEG)):
            # zeros after an interrupted download; a colour profile or a preview before the frame; or it is progressive
            pixels = _whole_size(Path(path).read_bytes()) if size <= _WHOLE else None
        return head, tail, pixels
    except OSError as error:
        raise DataError(f"missing file: {path}: {error.strerror or error}") from error


def _whole_size(data: bytes) -> tuple[int, int] | None:
    """`sound_size` of a whole file in which no damage is found."""
    format = "JPEG" if data.startswith(_JPEG) else "PNG" if data.startswith(_PNG) else None
    size = sound_size(data, data[-16:]) if format else None
    return None if size is None or damage(data, format, size) else size


def sound_size(head: bytes, tail: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG or PNG whose beginning and end are as they should be; None: decode it to know."""
    if head.startswith(_JPEG):
        return _jpeg_size(head) if tail.endswith(_END) else None
    if head.startswith(_PNG) and head[12:16] == b"IHDR" and tail.endswith(b"IEND\xaeB`\x82"):
        size = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        return size if 0 not in size else None
    return None


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 9 <= len(head) and head[position] == 0xFF:
        marker = head[position + 1]
        if marker in (_BASELINE, _EXTENDED) or (
            marker == _PROGRESSIVE and head.endswith(_END) and head.count(_SCAN) <= MAX_SCANS
        ):
            height, width = _two_numbers(head, position + 5)
            return (width, height) if width and height else None
        if 0xC2 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None
        position += 2 + (head[position + 2] << 8 | head[position + 3])
    return None
