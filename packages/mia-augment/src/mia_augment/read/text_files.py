"""Data files as text: unpacked and decoded, with bytes that are no text marked instead of replaced."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from mia_augment.errors import DataError

MOST_UNPACKED, UNPACKED_FREELY = 250, 64 << 20
"""A file may unpack to 250 times its size, or 64 MiB; packed text rarely exceeds 20 times, a bomb 1000."""
LFS = b"version https://git-lfs"
"""How the pointer begins that stands in place of a file where `git lfs pull` was not called."""

_PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_PICKLE = "it is a pickle, which is never read since it can run programs; save the data as JSONL"
_FOREIGN = {
    LFS: "it is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`",
    b"PK\x03\x04": "it is a ZIP archive; unpack it, or give JSON, JSONL, CSV, parquet or tar",
    b"\x28\xb5\x2f\xfd": "it is packed with zstd; unpack it with `unzstd`, or pack it with gzip, bzip2 or xz",
    b"ARROW1": "it is an Arrow file; save the data set as parquet or JSON",
    b"\xff\xff\xff\xff": "it is an Arrow stream; save the data set as parquet or JSON",
    b"\x80\x02": _PICKLE,
    b"\x80\x03": _PICKLE,
    b"\x80\x04": _PICKLE,
    b"\x80\x05": _PICKLE,
    b"<": "it is a page of HTML or XML, as a failed download leaves; fetch it again",
}
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order mark -> encoding; that of UTF-32 begins like UTF-16's."""
_NOT_TEXT = re.compile("[\udc80-\udcff]")
"""What `surrogateescape` makes of bytes that are not UTF-8."""
_NOT_ASCII = re.compile("[^\0-\x7f]")
FOREIGN = 0.1
"""Where more than this share of a file's characters beyond ASCII are not UTF-8, the others may be so by chance."""
_CHUNK = 1 << 20


def open_unpacked(source: Path) -> io.BufferedReader:
    """Open a file for reading its bytes, those that are packed in it where it is a gzip, bzip2 or xz file.

    Raises:
        DataError: a Git LFS pointer or another kind of file of which no rows can be read. Reading raises it where the packed
            file is damaged, or unpacks to more than `MOST_UNPACKED` times its size.
    """
    file = source.open("rb")
    head = file.peek(64)[:64]
    why = next((why for magic, why in _FOREIGN.items() if head.startswith(magic)), None)
    if why:
        file.close()
        raise DataError(f"{source}: {why}")
    unpack = next((unpack for magic, unpack in _PACKED.items() if head.startswith(magic)), None)
    return io.BufferedReader(_Unpacked(unpack(file), source), 1 << 16) if unpack else file


class _Unpacked(io.RawIOBase):
    """The bytes of a packed file, as far as their number is bearable."""

    def __init__(self, packed: BinaryIO, source: Path) -> None:
        self._packed, self._source, self._read = packed, source, 0
        self._most = max(UNPACKED_FREELY, MOST_UNPACKED * source.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        try:
            data = self._packed.read(len(target))
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise DataError(f"{self._source}: damaged or cut off, it cannot be unpacked: {error}; fetch it again") from error
        self._read += len(data)
        if self._read > self._most:
            raise DataError(
                f"{self._source}: unpacks to more than {MOST_UNPACKED} times its size; unpack it yourself if that is right"
            )
        target[: len(data)] = data
        return len(data)


@dataclass(frozen=True)
class Text:
    """A data file opened as text."""

    file: IO[str]
    name: str
    """What messages call it."""
    doubtful: re.Pattern[str] | None
    """What is no text, or may be none; None: all is text."""

    def undecoded(self, text: str, where: str) -> str | None:
        """Why a row of the file cannot be used; None: it is text. `where` says which row it is."""
        match = self.doubtful.search(text) if self.doubtful else None
        if match is None:
            return None
        around = text[max(0, match.start() - 12) : match.start() + 12].encode("utf-8", "surrogateescape")
        return (
            f"not UTF-8: {where} of {self.name} holds bytes of another encoding, {around!r}; convert the file, for example "
            "with `iconv -f WINDOWS-1252 -t UTF-8`, naming the encoding it has"
        )


@contextlib.contextmanager
def open_text(source: Path) -> Iterator[Text]:
    """Open a file as text, unpacked: UTF-8, or UTF-16 or UTF-32 known by a byte order mark or by the NULs of its beginning.

    Line ends stay as they are. Bytes that are not UTF-8 become lone surrogates; such rows are known by `Text.undecoded`.

    Raises:
        DataError: as `open_unpacked`, and where a file of UTF-16 or UTF-32 is damaged.
    """
    doubtful = _doubtful(source)
    with open_unpacked(source) as file:
        encoding = encoding_of(file.peek(64)[:64])
        errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
        text = io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="")
        try:
            yield Text(text, source.name, doubtful)
        except UnicodeDecodeError as error:
            raise DataError(f"{source}: not valid {error.encoding.upper()}: {error.reason}; save it as UTF-8") from error


def _doubtful(source: Path) -> re.Pattern[str] | None:
    """What in a file is no text or may be none; it is read once to know how much of it is not UTF-8."""
    with open_unpacked(source) as file:
        if not encoding_of(file.peek(64)[:64]).startswith("utf-8"):
            return None
        strict = codecs.getincrementaldecoder("utf-8")()
        try:
            while data := file.read(_CHUNK):
                strict.decode(data)
            strict.decode(b"", final=True)
            return None
        except UnicodeDecodeError:
            pass
    with open_unpacked(source) as file:
        lenient = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        wrong = beyond = 0
        while data := file.read(_CHUNK):
            text = lenient.decode(data)
            wrong += len(_NOT_TEXT.findall(text))
            beyond += len(_NOT_ASCII.findall(text))
    return _NOT_ASCII if wrong > FOREIGN * beyond else _NOT_TEXT


def encoding_of(head: bytes) -> str:
    """The encoding of a text by its first bytes.

    >>> encoding_of("[{}]".encode("utf-16-be")), encoding_of(b"[{}]")
    ('utf-16-be', 'utf-8')
    """
    marked = next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), None)
    if marked:
        return marked
    head = head[: len(head) // 4 * 4]
    patterns: dict[tuple[bool, ...], str] = {
        (False, True, True, True): "utf-32-le",
        (True, True, True, False): "utf-32-be",
        (False, True, False, True): "utf-16-le",
        (True, False, True, False): "utf-16-be",
    }
    return patterns.get(tuple(bool(head) and not any(head[place::4]) for place in range(4)), "utf-8")
