"""Pictures as rows bring them, opened once and written out by their content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mia_augment import DataError, PictureSettings
from mia_augment.images import StorePicture, check_file, open_picture, picture_path
from mia_augment.rows import EmbeddedPictures

IMAGES = "images"
"""Folder of the pictures in an imported folder."""


class _Written(str):
    """Name of a picture that already lies in the folder, to tell it from a path of the row."""


class WrittenPictures:
    """Opens every picture once and writes it below a folder, each content once."""

    def __init__(self, roots: Sequence[Path], out: Path, limits: PictureSettings | None = None) -> None:
        self.roots, self.limits = roots, limits or PictureSettings()
        self._files = EmbeddedPictures(out, below=IMAGES)
        self._sound: set[str] = set()
        self._by_path: dict[str, str] = {}

    def __call__(self, picture: Any, exported: str | None = None) -> str:
        """Name of the picture, relative to the folder.

        Raises:
            DataError: no picture, a file that is missing or cannot be opened as one, or an address in the net.
        """
        path = picture_path(picture, self._store)
        if path is None:
            raise DataError("no image: the row names a picture that is empty")
        if isinstance(path, _Written):
            return path
        if path not in self._by_path:
            self._by_path[path] = self._copy(path)
        return self._by_path[path]

    def _copy(self, path: str) -> str:
        """Store the file of that path, in the first of the roots that has it."""
        files = [root / path for root in self.roots]
        file = next((file for file in files if _exists(file)), files[0])
        check_file(file, self.limits)
        try:
            data = file.read_bytes()
        except OSError as error:
            raise DataError(f"missing file: {file}: {error.strerror or error}") from error
        return self._store(data, str(file))

    def _store(self, picture: Any, what: str = "the row's own picture") -> str:
        size = len(picture) if isinstance(picture, bytes) else 0
        if size > self.limits.max_bytes:
            raise DataError(f"picture too large: {what}: {size} bytes, more than max_bytes {self.limits.max_bytes}")
        name = self._files.store(picture)
        if name not in self._sound:
            file = self._files.folder / name
            try:
                open_picture(file, limits=self.limits)
            except DataError as error:
                file.unlink(missing_ok=True)
                raise DataError(str(error).replace(str(file), what)) from None
            self._sound.add(name)
        return _Written(name)


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):  # too long, or with characters that no name can have
        return False


class NamedPictures:
    """The names of pictures that stay where they are."""

    def __init__(self, store: StorePicture | None) -> None:
        self.store = store

    def __call__(self, picture: Any, exported: str | None = None) -> str:
        """As it was exported, else the path of the row, or what `store` returns for one that stands in the row itself.

        Raises:
            DataError: no picture, or one that there is no place for.
        """
        if exported is not None and self.store is None:
            return exported
        path = picture_path(picture, self.store)
        if path is None:
            raise DataError("no image: the row names a picture that is empty")
        return path
