"""Rows of WebDataset tar files: members of one name and several extensions are one row.

Nothing is unpacked to the disk under a name of the archive: pictures are kept by their content like all that come inside rows.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mia_augment.errors import DataError
from mia_augment.images.picture_values import excerpt
from mia_augment.read.json_values import Damaged
from mia_augment.read.text_files import open_unpacked

MAX_MEMBER = 200_000_000
"""Bytes; larger members are not read."""
MAX_HEADER = 1 << 20
"""Bytes of a member's extended header (a long name, attributes)."""
MAX_EMPTY_READS = 1000
"""Reading behind the end so often means that bytes are missing."""
_PICTURES = frozenset(("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "jp2", "avif", "heic", "heif"))
_TABLES = ("jsonl", "ndjson", "csv", "tsv", "parquet")
_TEXTS = {"txt": "caption", "text": "caption", "caption": "caption", "question": "question", "answer": "answer"}


class _Member(tarfile.TarInfo):
    """A member whose headers are read only up to a bearable size."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        held_in_memory = (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )
        if self.type in held_in_memory and self.size > MAX_HEADER:
            raise tarfile.HeaderError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


class _UpToItsEnd:
    """A file that is not read on for ever where a member claims more bytes than there are."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._empty = file, 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._empty += not data
        if self._empty > MAX_EMPTY_READS:
            raise tarfile.ReadError("it breaks off")
        return data


def tar_values(source: Path) -> Iterator[dict[str, Any] | Damaged]:
    """Yield a dict for each row: what its JSON holds, its texts, and its picture as bytes; its name as `id` where it has none.

    Raises:
        DataError: no valid tar file, or one that breaks off.
    """
    key, row = "", dict[str, Any]()
    try:
        with open_unpacked(source) as file, _opened(_UpToItsEnd(file)) as tar:
            for member in tar:
                if not member.isfile() or Path(member.name).name.startswith("."):
                    continue
                name, _, extension = _split(member.name)
                if name != key and row:
                    yield _finished(key, row)
                    row = {}
                key = name
                _add(row, extension, tar, member, source)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{source}: not a valid tar file, or cut off: {error}") from error
    if row:
        yield _finished(key, row)


def _opened(file: Any) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode="r|", tarinfo=_Member)


def _split(name: str) -> tuple[str, str, str]:
    """Folder and beginning of a member's name, and the extension behind the first point, as WebDataset divides them."""
    folder, slash, last = name.rpartition("/")
    stem, point, extension = last.partition(".")
    return folder + slash + stem, point, extension.lower()


def _add(row: dict[str, Any], extension: str, tar: tarfile.TarFile, member: tarfile.TarInfo, source: Path) -> None:
    kind = extension.rpartition(".")[2]
    if kind in _TABLES:
        raise DataError(
            f"{source}: expected a WebDataset, a picture and its JSON under one name, but it holds {excerpt(member.name, 200)}"
            "; unpack it, and name that file and the folder of its pictures"
        )
    if kind not in _PICTURES | _TEXTS.keys() | {"json"}:
        return
    if member.size > MAX_MEMBER:
        row["problem"] = f"{excerpt(member.name, 200)} has {member.size} bytes, more than {MAX_MEMBER}"
        return
    reader = tar.extractfile(member)
    data = reader.read() if reader else b""
    if len(data) != member.size:
        raise DataError(
            f"{source}: breaks off in {excerpt(member.name, 200)}: {len(data)} bytes of {member.size}; fetch it again"
        )
    if kind in _PICTURES:
        row.setdefault("pictures", []).append(data)
        return
    try:
        text = data.decode("utf-8-sig")
        value = json.loads(text) if kind == "json" else {_TEXTS[kind]: text.strip()}
        if not isinstance(value, dict):
            raise ValueError(f"expected an object, got {type(value).__name__}")
        row.setdefault("values", {}).update(value)
    except (ValueError, RecursionError) as error:
        row["problem"] = f"{excerpt(member.name, 200)} cannot be read: {error}"


def _finished(key: str, row: dict[str, Any]) -> dict[str, Any] | Damaged:
    if "problem" in row:
        return Damaged(f"bad row: {row['problem']}")
    values = {"id": key, **row.get("values", {})}
    return {**values, "image": row["pictures"]} if "pictures" in row else values
