"""Pictures that come inside the rows, as in parquet files and Hugging Face data sets: written out, named by their content."""

from __future__ import annotations

import io
import os
from hashlib import blake2b
from pathlib import Path

from PIL import Image

from mia_augment.errors import DataError
from mia_augment.images.decode import upright_rgb
from mia_augment.storage.reading import naming

EMBEDDED = "embedded"
"""Folder of these pictures; the first part of their names."""
_KINDS = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}


class EmbeddedPictures:
    """Writes pictures below a folder, each once, and tells their names, which begin with `below`."""

    def __init__(self, folder: Path, below: str = EMBEDDED) -> None:
        self.folder, self.below = folder, below

    def store(self, picture: bytes | Image.Image) -> str:
        """Write the bytes of a picture file (or a picture, upright and as PNG) and return its name relative to the folder.

        Raises:
            DataError: a picture that cannot be decoded.
        """
        data = picture if isinstance(picture, bytes) else _as_png(picture)
        suffix = next((kind for magic, kind in _KINDS.items() if data.startswith(magic)), "img")
        digest = blake2b(data, digest_size=10).hexdigest()
        name = f"{self.below}/{digest[:2]}/{digest}.{suffix}"
        path = self.folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                with naming(path):
                    temporary.write_bytes(data)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return name


def embedded_folders() -> tuple[str, ...]:
    """All folders that `EmbeddedPictures` may write into, relative to its own."""
    return tuple(f"{EMBEDDED}/{number:02x}" for number in range(256))


def _as_png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    try:
        upright_rgb(picture.copy()).save(stream, "PNG", compress_level=1)
    except Exception as error:  # it may only be decoded now
        raise DataError(f"broken picture: the row's own picture cannot be kept: {error or type(error).__name__}") from error
    return stream.getvalue()
