"""Knowing pictures without decoding them: where they lie, whether they are whole, and which are the same."""

from __future__ import annotations

import os
import stat
from hashlib import blake2b
from pathlib import Path

from mia_augment.errors import DataError
from mia_augment.pictures import check_file, check_pixels, open_picture
from mia_augment.settings import PictureSettings

SAMPLE = 4096
"""Bytes of the beginning, the middle and the end of a large file that stand for the whole."""
_SMALL = 4 * SAMPLE
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_RARE_FRAMES = frozenset(range(0xC5, 0xD0)) | {0xC3}
_SCAN_BASED = 0xC2


def hash64(*parts: bytes) -> int:
    """A stable 64-bit hash of byte strings, the same in every process and on every machine."""
    return int.from_bytes(blake2b(b"\0".join(parts), digest_size=8).digest(), "little")


class PictureFolder:
    """The pictures below one folder, the image root, which no path may leave."""

    def __init__(self, root: Path, limits: PictureSettings) -> None:
        if not root.is_dir():
            raise DataError(f"image root {root}: no such folder")
        self.root = os.path.realpath(root)
        self.limits = limits
        self._folders: dict[str, str] = {}

    def locate(self, name: str) -> tuple[str, Path]:
        """(normalised name, absolute path) of a picture.

        Raises:
            DataError: missing, or the path is absolute or leads out of the image root by ``..`` or a symlink.
        """
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or not parts or (os.name == "nt" and (":" in name or "\\" in name)):
            raise DataError(f"outside the image root: expected a path relative to it, without '..', got {name!r}")
        folder = "/".join(parts[:-1])
        real = self._folders.get(folder) or self._real_folder(folder, name)
        path = f"{real}/{parts[-1]}"
        try:
            status = os.lstat(path)
        except (OSError, ValueError):
            raise DataError(f"missing file: {name!r} is not in {self.root}") from None
        if stat.S_ISLNK(status.st_mode):
            path = os.path.realpath(path)
            self._inside(path, name)
        return "/".join(parts), Path(path)

    def _real_folder(self, folder: str, name: str) -> str:
        try:
            real = os.path.realpath(f"{self.root}/{folder}")
        except (OSError, ValueError):
            raise DataError(f"missing file: {name!r} is not in {self.root}") from None
        self._inside(real, name)
        if len(self._folders) > 10_000:
            self._folders.clear()
        self._folders[folder] = real
        return real

    def _inside(self, path: str, name: str) -> None:
        if path != self.root and not path.startswith(self.root.rstrip("/") + "/"):
            raise DataError(f"outside the image root: a symlink of {name!r} leads out of {self.root}")

    def content_key(self, path: Path) -> int:
        """A hash by which the same picture is known under any name; the file is checked meanwhile.

        A JPEG or PNG whose header and end are sound is not decoded; anything doubtful is, wholly. Large ones are known by
        their size, beginning, middle and end.

        Raises:
            DataError: empty, cut off, too large, or no picture.
        """
        size = check_file(path, self.limits)
        with path.open("rb", buffering=0) as file:
            head = file.read(_SMALL if size <= _SMALL else SAMPLE)
            if size <= _SMALL:
                data, tail = head, head
            else:
                file.seek(size // 2)
                middle = file.read(SAMPLE)
                file.seek(size - SAMPLE)
                tail = file.read(SAMPLE)
                data = head + middle + tail
        pixels = sound_size(head, tail)
        if pixels is None:
            open_picture(path, limits=self.limits)
            if not head.startswith((_JPEG, _PNG)):
                data = path.read_bytes()
        else:
            check_pixels(pixels, path, self.limits)
        return hash64(str(size).encode(), data)


def sound_size(head: bytes, tail: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG or PNG whose beginning and end are as they should be; None: decode it to know."""
    if head.startswith(_JPEG):
        return _jpeg_size(head) if tail.endswith(b"\xff\xd9") else None
    if head.startswith(_PNG) and head[12:16] == b"IHDR" and tail.endswith(b"IEND\xaeB`\x82"):
        size = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        return size if 0 not in size else None
    return None


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 9 <= len(head):
        if head[position] != 0xFF:
            return None
        marker = head[position + 1]
        if marker in _FRAME_MARKERS:
            if marker in _RARE_FRAMES or marker == _SCAN_BASED:
                return None
            size = (
                int.from_bytes(head[position + 7 : position + 9], "big"),
                int.from_bytes(head[position + 5 : position + 7], "big"),
            )
            return size if 0 not in size else None
        position += 2 + int.from_bytes(head[position + 2 : position + 4], "big")
    return None
